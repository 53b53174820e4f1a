//! Network namespaces: made with a name that `ip netns` knows, entered by threads that live for one piece of work.
//!
//! A thread's namespace is what its sockets, its `/proc/sys/net` and its children get. So work inside one runs on a
//! thread of its own, which ends with the work: a thread of the async runtime is never moved, and none is left behind
//! in a foreign namespace. What was opened there (a socket, a tap) stays in its namespace wherever it is used later.
//!
//! A namespace lives as long as its name, or anything open in it. Removing the name while a machine still holds a tap
//! therefore does not end it: links are deleted first, by whoever made them.

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where iproute2 keeps the names, so that `ip netns exec` works with ours.
const DIRECTORY: &str = "/run/netns";

/// The namespace of the thread that asks.
const CURRENT: &str = "/proc/thread-self/ns/net";

/// `f_type` of the file system that namespace files are on (`linux/magic.h`).
const NSFS_MAGIC: u64 = 0x6e73_6673;

#[derive(Clone, Debug)]
pub struct Namespace {
    file: Arc<OwnedFd>,
}

impl Namespace {
    /// The namespace that the calling thread is in.
    pub fn current() -> io::Result<Namespace> {
        Namespace::open_path(Path::new(CURRENT))
    }

    /// The namespace that a file stands for; `InvalidInput` where the file is something else.
    pub fn open_path(path: &Path) -> io::Result<Namespace> {
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        // The type's width differs between architectures.
        #[allow(clippy::unnecessary_cast)]
        let kind = rustix::fs::fstatfs(&file)?.f_type as u64;
        if kind != NSFS_MAGIC {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} is no namespace", path.display()),
            ));
        }
        Ok(Namespace { file: Arc::new(file) })
    }

    /// The namespace of this name, or None.
    pub fn open(name: &str) -> io::Result<Option<Namespace>> {
        match Namespace::open_path(&path_of(name)) {
            Ok(namespace) => Ok(Some(namespace)),
            // A plain file is what a crash between making the file and mounting on it leaves.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A new namespace with this name.
    pub async fn create(name: &str) -> io::Result<Namespace> {
        let path = path_of(name);
        on_own_thread(None, move || {
            prepare_directory()?;
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            std::fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
            // SAFETY: only the file descriptor table must not be unshared behind the standard library's back.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)? };
            rustix::mount::mount_bind(CURRENT, &path)?;
            Namespace::current()
        })
        .await
    }

    /// Takes the name away; no error where there is none.
    pub fn remove(name: &str) -> io::Result<()> {
        let path = path_of(name);
        match rustix::mount::unmount(&path, UnmountFlags::DETACH) {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The names of all named namespaces of the machine, ours or not.
    pub fn names() -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    /// Does the work inside the namespace.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        on_own_thread(Some(self.clone()), work).await
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn path_of(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

async fn on_own_thread<T: Send + 'static>(
    inside: Option<Namespace>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
        let enter = || match &inside {
            Some(namespace) => {
                rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            }
            None => Ok(()),
        };
        // Nobody waits for the answer where the caller was dropped; the work is done all the same.
        let _ = sender.send(enter().map_err(io::Error::from).and_then(|()| work()));
    })?;
    receiver.await.unwrap_or_else(|_| Err(io::Error::other("the work inside a network namespace panicked")))
}

/// Makes the directory a shared mount, as iproute2 does, so that a namespace made in one mount namespace of the
/// machine is seen, and goes, in all. The lock is iproute2's too: two that find it unshared must not both mount.
fn prepare_directory() -> io::Result<()> {
    std::fs::create_dir_all(DIRECTORY)?;
    let directory = std::fs::File::open(DIRECTORY)?;
    rustix::fs::flock(&directory, FlockOperation::LockExclusive)?;
    let share =
        || rustix::mount::mount_change(DIRECTORY, MountPropagationFlags::SHARED | MountPropagationFlags::REC);
    match share() {
        Err(rustix::io::Errno::INVAL) => {
            rustix::mount::mount_bind_recursive(DIRECTORY, DIRECTORY)?;
            Ok(share()?)
        }
        done => Ok(done?),
    }
}
