// Package fault holds the one table from domain errors to those of gRPC, HTTP and OAuth, and their reasons. Every error
// response is made here: Public returns what the caller may know about an error, Status writes it in the Google form,
// and ClassOfDomain and its kin look up rows of the table.
package fault
