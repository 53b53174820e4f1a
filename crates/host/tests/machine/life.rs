//! From start to end, over restarts of the driver.

use crate::guest::Then;
use crate::host::Host;
use host::machine::{EndCause, Found, FoundState, Hypervisor, MachineError};

#[tokio::test]
async fn a_machine_runs_is_found_again_and_ends_when_asked() {
    let Some(mut host) = Host::new() else { return };
    let spec = host.started("hello", Then::Halt).await;
    host.said(&spec, "hello", 1).await;

    let found = host.restart().await;
    let running = FoundState::Running;
    assert_eq!(found, [Found { instance_id: spec.instance_id.clone(), boot: 1, state: running }]);
    assert_eq!(host.console(&spec).await.matches("hello").count(), 1);
    host.driver().start(spec.clone(), vec![]).await.expect("the same boot runs already");
    assert_eq!(host.processes().len(), 1);

    host.driver().end(&spec.instance_id).await.unwrap();
    assert_eq!(host.processes(), [0i32; 0]);
    host.driver().end(&spec.instance_id).await.unwrap();
    assert!(host.ends.try_recv().is_err(), "asked for, so not told");
    assert_eq!(host.console(&spec).await.matches("hello").count(), 1);

    host.driver().forget(&spec.instance_id).await.unwrap();
    assert_eq!(std::fs::read_dir(host.machines()).unwrap().count(), 0);
    assert!(matches!(
        host.driver().console_output(&spec.instance_id, 10).await,
        Err(MachineError::NotFound(_))
    ));
}

#[tokio::test]
async fn a_guest_that_powers_off_is_told_and_may_start_again() {
    let Some(mut host) = Host::new() else { return };
    let mut spec = host.started("bye", Then::PowerOff).await;
    let ended = host.next_end().await;
    assert_eq!((&ended.instance_id, ended.boot, &ended.cause), (&spec.instance_id, 1, &EndCause::Guest));
    assert_eq!(host.processes(), [0i32; 0]);
    spec.boot = 2;
    host.driver().start(spec.clone(), vec![]).await.unwrap();
    assert_eq!(host.next_end().await.boot, 2);
    assert_eq!(host.console(&spec).await.matches("bye").count(), 2);
}

#[tokio::test]
async fn what_ended_while_nobody_looked_is_found_with_its_cause() {
    let Some(mut host) = Host::new() else { return };
    let button = host.started("waiting", Then::ObeyButton).await;
    host.said(&button, "waiting", 1).await;
    host.driver().press_power_button(&button.instance_id).await.unwrap();
    let ended = host.next_end().await;
    assert_eq!(ended.cause, EndCause::Guest);

    let killed = host.started("killed", Then::Halt).await;
    host.said(&killed, "killed", 1).await;
    let pid = host.processes()[0];
    let kill = || {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    let found = host.restart_after(kill).await;
    let state_of = |id| found.iter().find(|found| found.instance_id == id).unwrap().state.clone();
    assert_eq!(state_of(button.instance_id), FoundState::Ended(EndCause::Guest));
    assert!(matches!(state_of(killed.instance_id), FoundState::Ended(EndCause::Lost(_))));
}

#[tokio::test]
async fn a_killed_process_is_told_as_lost() {
    let Some(mut host) = Host::new() else { return };
    let spec = host.started("hello", Then::Halt).await;
    host.said(&spec, "hello", 1).await;
    host.kill(host.processes()[0]);
    assert!(matches!(host.next_end().await.cause, EndCause::Lost(_)));
    assert!(host.console(&spec).await.contains("hello"));
}

#[tokio::test]
async fn a_guest_that_resets_goes_on() {
    let Some(mut host) = Host::new() else { return };
    let spec = host.started("again", Then::ResetOnce).await;
    host.said(&spec, "again", 2).await;
    assert!(host.ends.try_recv().is_err());
    host.driver().end(&spec.instance_id).await.unwrap();
}

#[tokio::test]
async fn a_guest_that_prints_for_ever_is_bounded_and_still_obeys() {
    let Some(mut host) = Host::new() else { return };
    let spec = host.started("0123456789abcdef", Then::Flood).await;
    // More than the ring holds, while nobody listens.
    host.restart_after(|| std::thread::sleep(std::time::Duration::from_secs(1))).await;
    host.said(&spec, "0123456789abcdef", 4000).await;
    assert_eq!(host.driver().console_output(&spec.instance_id, 1000).await.unwrap().len(), 1000);
    host.driver().end(&spec.instance_id).await.unwrap();
    let kept = std::fs::metadata(host.machines().join(&*spec.instance_id).join("console.log")).unwrap().len();
    assert!(kept <= 4 * 1024 * 1024, "{kept}");
}

#[tokio::test]
async fn the_screen_is_shown_as_a_jpeg() {
    let Some(host) = Host::new() else { return };
    let spec = host.started("hello", Then::Halt).await;
    for _ in 0..2 {
        let screen = host.driver().console_screenshot(&spec.instance_id).await.unwrap();
        assert_eq!(&screen[..3], [0xff, 0xd8, 0xff]);
    }
    host.driver().end(&spec.instance_id).await.unwrap();
    assert!(host.driver().console_screenshot(&spec.instance_id).await.is_err());
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_leaves_no_process() {
    let Some(mut host) = Host::new() else { return };
    let mut spec = host.spec("never", Then::Halt);
    let good = spec.disks[0].layers[0].path.clone();

    spec.disks[0].layers[0].path = host.dir.path().join("missing");
    assert!(host.driver().start(spec.clone(), vec![]).await.is_err());
    spec.disks[0].layers[0].path = good;
    spec.memory_mib = 1 << 40;
    let refused = host.driver().start(spec.clone(), vec![]).await;
    assert!(matches!(&refused, Err(MachineError::Failed(why)) if why.contains("memory")), "{refused:?}");
    spec.memory_mib = 64;
    host.use_program("/nonexistent/qemu");
    let missing = host.driver().start(spec.clone(), vec![]).await;
    assert!(
        matches!(&missing, Err(MachineError::Failed(why)) if why.contains("not installed")),
        "{missing:?}"
    );
    host.use_program("/bin/false");
    assert!(host.driver().start(spec.clone(), vec![]).await.is_err());

    assert_eq!(host.processes(), [0i32; 0]);
    let found = host.restart().await;
    assert!(matches!(found[0].state, FoundState::Ended(EndCause::Lost(_))), "{found:?}");
    spec.boot = 2;
    host.driver().start(spec.clone(), vec![]).await.unwrap();
    host.said(&spec, "never", 1).await;
}

#[tokio::test]
async fn a_disk_serves_one_machine_at_a_time() {
    let Some(host) = Host::new() else { return };
    let first = host.started("first", Then::Halt).await;
    let mut second = host.spec("second", Then::Halt);
    second.disks = first.disks.clone();
    let refused = host.driver().start(second.clone(), vec![]).await;
    assert!(matches!(&refused, Err(MachineError::Failed(why)) if why.contains("lock")), "{refused:?}");
    host.driver().end(&first.instance_id).await.unwrap();
    host.driver().start(second.clone(), vec![]).await.expect("its disk is released");
}

/// The driver is killed before the record is written: what was started must not stay, and must not have run.
#[tokio::test]
async fn a_machine_that_is_not_on_record_is_ended() {
    let Some(mut host) = Host::new() else { return };
    let spec = host.started("hello", Then::Halt).await;
    let other = host.started("other", Then::Halt).await;
    host.said(&spec, "hello", 1).await;
    let directory = host.machines().join(&*spec.instance_id);
    let found = host.restart_after(|| std::fs::remove_file(directory.join("machine.json")).unwrap()).await;
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].instance_id, &found[0].state), (&other.instance_id, &FoundState::Running));
    assert_eq!(host.processes().len(), 1);
    assert!(!directory.exists());
}
