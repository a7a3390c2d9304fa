// Command patbench measures patd beside programs that do nothing but what cannot be avoided, and prints the table of
// figures that the project is held to.
//
//	patbench [-rows unary,stream,…] [-tokens N] [-rounds N] [-period 3s]
//	patbench generate -tokens N -dir DIR
//
// An absolute figure from a shared machine means little, so two programs are always compared in one run, in turn (A B A
// B), and what is quoted is the median of the ratios of each round, with their range. The servers are processes of
// their own on loopback; this process makes the load. Since it takes its share of the machine, the figure that counts
// is the CPU time that the server's process has used per 100 000 calls, as the kernel accounts it. Every answer is
// checked; one wrong answer or error ends the run.
//
// The baselines: echo is an empty unary call of grpc-go with default options, with requests and answers of the same
// size; echo-http is JSON over net/http in the same way. The stores are made by `generate` once and kept in -dir; the
// secret of every token in them follows from its number, so that the load can present it.
//
// The row windows measures how evenly servers work: the CPU time a token in each tenth of a second, of the empty call,
// which has only the noise of the machine, and of patd's unary calls and stream.
//
// The row rivals measures patd's ways to be asked beside other servers, whose binaries -openbao, -hydra, -unkey and
// -redis name; the row local measures the client library beside the verification of JWTs, in this process. Package
// rival starts the servers and says what they are asked.
package main
