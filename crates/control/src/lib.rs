//! One file per AWS resource, reconcilers, placement; never sees HTTP or the machine.
