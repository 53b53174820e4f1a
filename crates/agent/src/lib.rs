//! A task per instance; metadata, DHCP and DNS services; reconcile desired with observed; the simulated host.
