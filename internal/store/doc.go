// Package store keeps bootd's records: typed, in transactions, on stable
// storage, in etcd.
//
// By default a single etcd member runs inside the process, with its data in the
// state directory and without any socket; [Options.Endpoints] names an existing
// cluster instead. Either way it is the same code above.
//
// A [Kind] is a sort of record: a prefix and a type, kept as JSON. [Store.Update]
// runs a function on a transaction; what it read is checked when it is written,
// and the function runs again when somebody else was faster. [Follow] hands over
// what is there and then every change, without a gap.
//
// A Store is safe for concurrent use. Functions given to Update may run more
// than once and must do nothing but read and write the transaction.
package store
