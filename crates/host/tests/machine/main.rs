//! The life of machines with a real QEMU: root and qemu-system-x86_64 are needed, else the tests say so and pass.

mod devices;
mod disks;
mod full_disk;
mod guest;
mod host;
mod life;
mod rates;
mod served;
mod shared;
mod shares;
