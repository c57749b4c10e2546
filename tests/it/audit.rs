//! The audit log as an operator has it: written whatever happens to its destination, once for each
//! request, and without a secret in it.

mod destination;
mod page;
mod reading;
mod secrets;
mod stores;
mod streams;
