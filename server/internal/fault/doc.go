// Package fault is the one table from the errors of the domain to those of gRPC, HTTP and OAuth, and the reasons that stand in
// them. Every answer about a failure is made here: Public says what the caller may know of an error, Status writes it in the Google
// form, ClassOfDomain and its kin look rows of the table up.
package fault
