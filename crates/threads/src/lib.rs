//! Threads for work that takes much of a core: encoding, and reading what brokers send.
//!
//! A table is planned in milliseconds, in many small steps on many threads. Beside encodings that take all cores, each of
//! those steps would wait for its turn. So encodings have threads of their own, which the scheduler puts behind all
//! others of this process. (tokio's blocking threads cannot be used for that: a thread that was put behind cannot be
//! brought back, and they are shared by all.)

use std::future::Future;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// How far behind: on Linux, a share of a core of about a third of what others get who want it at the same time. It is
/// added to the niceness that the process was started with.
#[cfg(target_os = "linux")]
const BEHIND: i32 = 5;

/// Why there is nothing to show for some work.
#[derive(Debug, thiserror::Error)]
pub enum NotDone {
    /// The system has no room for another thread.
    #[error("the system gives no thread ({0}); raise the limit on threads or tasks")]
    NoThread(std::io::Error),
    /// The work panicked.
    #[error("it panicked")]
    Panicked,
}

/// Does `work` on a thread behind all others, from now on, whether or not somebody waits for what is returned. To be called
/// within a tokio runtime, which is the thread's, too. The system shows the thread under `name`, of at most 15 bytes.
///
/// # Errors
/// When there is no thread for it, or it panicked.
pub fn run_behind<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T, NotDone>> + Send {
    let (tell, told) = oneshot::channel();
    let runtime = Handle::current();
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        step_back();
        let _within = runtime.enter();
        let _ = tell.send(work());
    });
    async move {
        spawned.map_err(NotDone::NoThread)?;
        told.await.map_err(|_| NotDone::Panicked)
    }
}

#[cfg(target_os = "linux")]
fn step_back() {
    // Linux has a niceness for each thread; `None` is the calling one.
    let behind = rustix::process::getpriority_process(None)
        .and_then(|own| rustix::process::setpriority_process(None, (own + BEHIND).min(19)));
    if let Err(error) = behind {
        static TOLD: std::sync::Once = std::sync::Once::new();
        TOLD.call_once(|| {
            tracing::warn!(%error, "encodings take their turns with all else: their priority cannot be lowered");
        });
    }
}

#[cfg(not(target_os = "linux"))]
fn step_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn work_is_done_behind_all_else_and_leaves_others_where_they_are() {
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let before = niceness();
        let behind = run_behind("behind", move || (niceness(), Handle::try_current().is_ok()));
        assert_eq!(behind.await.unwrap(), ((before + BEHIND).min(19), true));
        assert_eq!(niceness(), before);
    }

    #[tokio::test]
    async fn it_goes_on_when_nobody_waits_and_a_panic_is_told() {
        let (tell, told) = oneshot::channel();
        drop(run_behind("alone", move || tell.send(7)));
        assert_eq!(told.await, Ok(7));
        let failed = run_behind("fails", || panic!("on purpose")).await;
        assert!(matches!(failed, Err(NotDone::Panicked)), "{failed:?}");
    }
}
