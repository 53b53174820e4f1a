//! Start, stop, reboot, terminate, and what the host's observations make of them.

use super::run::PlacingGuard;
use super::{Hold, Instance, ShutdownBehavior, StateReason, placement, status};
use crate::engine::{Tables, Tx, transaction};
use crate::network_interface::{NetworkInterface, attach as interface};
use crate::region::RegionState;
use crate::volume::{self, Volume, attach};
use crate::{Context, Control};
use agent_api::{InstanceObservation, ObservedInstance, StopCause};
use aws_api::ec2;
use ipnet::Ipv4Net;
use model::{Error, Id, InstanceState, Kind, Result, Timestamp, Transition};
use std::collections::BTreeSet;

/// Most instances in one call.
const IDS_MAX: usize = 1000;

pub async fn start_instances(
    context: &Context,
    input: ec2::StartInstancesRequest,
) -> Result<ec2::StartInstancesResult> {
    let pool = context.options.public_pool;
    let guard = PlacingGuard::new(context.region.clone(), context.environment.random.u64());
    let changes = change_all(context, &input.instance_ids, |tx, instance, _| {
        if instance.state == InstanceState::Stopped {
            placement::settle(tx, instance, &guard, context.options.simulate)?;
            assign_public_addresses(tx, instance, pool)?;
            instance.boot += 1;
            instance.launched_at = tx.now();
            instance.state_reason = None;
            instance.state_transition_reason = Box::default();
            instance.force_stop = false;
        }
        move_on(instance, Transition::Start, "started")
    })
    .await?;
    drop(guard);
    Ok(ec2::StartInstancesResult { starting_instances: changes })
}

pub async fn stop_instances(
    context: &Context,
    input: ec2::StopInstancesRequest,
) -> Result<ec2::StopInstancesResult> {
    if input.hibernate == Some(true) {
        return Err(Error::new(
            "UnsupportedHibernationConfiguration",
            "The instances are not configured for hibernation.",
        ));
    }
    let force = input.force.unwrap_or(false) || input.skip_os_shutdown.unwrap_or(false);
    let changes = change_all(context, &input.instance_ids, |tx, instance, id| {
        if instance.disable_api_stop {
            return Err(Error::new(
                "OperationNotPermitted",
                format!("The instance '{id}' may not be stopped. Modify its 'disableApiStop' instance attribute and try again."),
            ));
        }
        let before = instance.state;
        move_on(instance, Transition::Stop, "stopped")?;
        if instance.state == InstanceState::Stopping {
            instance.force_stop |= force;
            if before != InstanceState::Stopping {
                user_initiated(instance, tx.now(), "Client.UserInitiatedShutdown", "User initiated shutdown");
            }
            // Of a guest that is down already the host has nothing more to say.
            if instance.hold == Some(Hold::Down) {
                stopped(tx, instance, &StopCause::Asked);
            }
        }
        Ok(())
    })
    .await?;
    Ok(ec2::StopInstancesResult { stopping_instances: changes })
}

pub async fn reboot_instances(context: &Context, input: ec2::RebootInstancesRequest) -> Result<()> {
    change_all(context, &input.instance_ids, |_, instance, _| {
        move_on(instance, Transition::Reboot, "rebooted")?;
        instance.boot += 1;
        Ok(())
    })
    .await?;
    Ok(())
}

pub async fn terminate_instances(
    context: &Context,
    input: ec2::TerminateInstancesRequest,
) -> Result<ec2::TerminateInstancesResult> {
    let changes = change_all(context, &input.instance_ids, |tx, instance, id| {
        if instance.disable_api_termination && !instance.is_terminated() {
            return Err(Error::new(
                "OperationNotPermitted",
                format!("The instance '{id}' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again."),
            ));
        }
        let before = instance.state;
        move_on(instance, Transition::Terminate, "terminated")?;
        instance.ended_stopped |= before == InstanceState::Stopped;
        instance.force_stop |= input.skip_os_shutdown.unwrap_or(false) && !instance.is_terminated();
        if before != instance.state {
            user_initiated(instance, tx.now(), "Client.UserInitiatedShutdown", "User initiated shutdown");
        }
        Ok(())
    })
    .await?;
    Ok(ec2::TerminateInstancesResult { terminating_instances: changes })
}

/// Changes all instances of a call in one transaction: all or none.
pub(super) async fn change_all(
    context: &Context,
    ids: &[String],
    mut change: impl FnMut(&mut Tx<'_>, &mut Instance, &str) -> Result<()>,
) -> Result<Vec<ec2::InstanceStateChange>> {
    if ids.is_empty() {
        return Err(Error::missing_parameter("InstanceId"));
    }
    if ids.len() > IDS_MAX {
        return Err(Error::invalid_parameter_value(format!(
            "At most {IDS_MAX} instances can be named in one request"
        )));
    }
    let wanted: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    for id in &wanted {
        Id::parse(Kind::Instance, id)?;
    }
    context
        .transact(|tx| {
            let missing: Vec<&str> =
                wanted.iter().copied().filter(|id| !tx.tables().instances.contains(id)).collect();
            if !missing.is_empty() {
                return Err(Id::not_found(Kind::Instance, &missing.join(", ")));
            }
            let mut changes = Vec::with_capacity(wanted.len());
            for id in &wanted {
                let before = tx.get::<Instance>(id).ok_or_else(|| Id::not_found(Kind::Instance, id))?;
                let mut instance = (*before).clone();
                change(tx, &mut instance, id)?;
                if instance != *before {
                    instance.request_id = tx.request_id().map(Into::into);
                    tx.put(&instance);
                }
                changes.push(ec2::InstanceStateChange {
                    instance_id: Some((*id).to_owned()),
                    previous_state: Some(state_to_api(before.state)),
                    current_state: Some(state_to_api(instance.state)),
                });
            }
            Ok(changes)
        })
        .await
}

pub fn state_to_api(state: InstanceState) -> ec2::InstanceState {
    ec2::InstanceState { code: Some(state.code()), name: Some(state.name().to_owned()) }
}

/// Moves the instance by a user's call, or says why it cannot be.
fn move_on(instance: &mut Instance, transition: Transition, done: &str) -> Result<()> {
    instance.state = instance.state.after(transition).ok_or_else(|| {
        Error::new(
            "IncorrectInstanceState",
            format!("The instance '{}' is not in a state from which it can be {done}.", instance.instance_id),
        )
    })?;
    Ok(())
}

fn user_initiated(instance: &mut Instance, now: Timestamp, code: &str, message: &str) {
    instance.state_reason = Some(StateReason::new(code, message).into());
    instance.state_transition_reason =
        format!("User initiated ({})", now.strftime("%Y-%m-%d %H:%M:%S GMT")).into();
}

fn interfaces_of(tx: &mut Tx<'_>, instance: &Instance) -> Vec<NetworkInterface> {
    instance
        .interfaces
        .iter()
        .filter_map(|id| tx.get::<NetworkInterface>(id))
        .map(|found| (*found).clone())
        .collect()
}

fn assign_public_addresses(tx: &mut Tx<'_>, instance: &Instance, pool: Ipv4Net) -> Result<()> {
    for mut interface in interfaces_of(tx, instance) {
        interface.assign(tx, pool)?;
        tx.put(&interface);
    }
    Ok(())
}

/// A stopped instance gives its public address back (EC2 User Guide, "Public IPv4 addresses").
fn release_public_addresses(tx: &mut Tx<'_>, instance: &Instance) {
    for mut interface in interfaces_of(tx, instance) {
        if interface.release_assigned(tx) {
            tx.put(&interface);
        }
    }
}

/// Takes in what a host observes of an instance. Observations of an older boot, and those that say nothing new,
/// change nothing.
pub fn observed(tx: &mut Tx<'_>, observation: &ObservedInstance) -> Result<()> {
    let Some(before) = tx.get::<Instance>(&observation.instance_id) else { return Ok(()) };
    let mut instance = (*before).clone();
    let stale = observation.boot < instance.boot;
    for device in &observation.devices {
        let (id, told) = (&device.device_id, &device.state);
        match Id::is_of(Kind::Volume, id) {
            true => attach::observed(tx, &mut instance, id, told),
            false => interface::observed(tx, &mut instance, id, told),
        }
    }
    match &observation.state {
        InstanceObservation::Preparing => {}
        InstanceObservation::Running if !stale => {
            host_says(&mut instance, Transition::HostRunning);
            if let Some(found) = observation.checks {
                instance.checks =
                    Some((observation.boot, status::since_before(before.checks, observation.boot, found)));
            }
        }
        InstanceObservation::Stopped(_) if is_held(&instance) => instance.hold = Some(Hold::Down),
        // A stop that was asked for concerns whichever boot it found.
        InstanceObservation::Stopped(cause) if !stale || instance.state == InstanceState::Stopping => {
            stopped(tx, &mut instance, cause);
        }
        InstanceObservation::Failed { .. } if instance.state == InstanceState::Stopping => {
            stopped(tx, &mut instance, &StopCause::Asked);
        }
        InstanceObservation::Failed { message } if !stale => failed(tx, &mut instance, message),
        InstanceObservation::Removed if instance.state == InstanceState::ShuttingDown => {
            removed(tx, &mut instance)
        }
        InstanceObservation::Running
        | InstanceObservation::Stopped(_)
        | InstanceObservation::Failed { .. }
        | InstanceObservation::Removed => {}
    }
    if instance != *before {
        tx.put(&instance);
    }
    Ok(())
}

/// Whether its guest is down, or going down, and the instance runs all the same.
fn is_held(instance: &Instance) -> bool {
    instance.hold.is_some() && instance.state == InstanceState::Running
}

/// Boots the guest again of an instance that was held.
pub(crate) fn let_guest_up(tx: &mut Tx<'_>, id: &Id) {
    if let Some(held) = tx.get::<Instance>(id)
        && held.hold.is_some()
    {
        let mut instance = Instance { hold: None, ..(*held).clone() };
        if instance.state == InstanceState::Running {
            instance.boot += 1;
        }
        tx.put(&instance);
    }
}

fn host_says(instance: &mut Instance, transition: Transition) {
    if let Some(state) = instance.state.after(transition) {
        instance.state = state;
    }
}

fn stopped(tx: &mut Tx<'_>, instance: &mut Instance, cause: &StopCause) {
    if instance.state == InstanceState::Stopped || instance.state.after(Transition::HostStopped).is_none() {
        return;
    }
    if *cause != StopCause::Asked && instance.state != InstanceState::Stopping {
        instance.request_id = None;
    }
    match cause {
        // Nobody asked for that of this boot: a word of a control plane that is no more.
        StopCause::Asked if instance.state != InstanceState::Stopping => {
            because(instance, "The host stopped the instance");
        }
        StopCause::Guest if instance.state != InstanceState::Stopping => {
            instance.state_reason = Some(
                StateReason::new("Client.InstanceInitiatedShutdown", "Instance initiated shutdown").into(),
            );
            instance.state_transition_reason = Box::default();
            if instance.shutdown_behavior == ShutdownBehavior::Terminate {
                instance.state = InstanceState::ShuttingDown;
                return;
            }
        }
        StopCause::Lost { message } if instance.state != InstanceState::Stopping => {
            because(instance, message)
        }
        StopCause::Asked | StopCause::Guest | StopCause::Lost { .. } => {}
    }
    host_says(instance, Transition::HostStopped);
    instance.hold = None;
    attach::settle(tx, instance);
    interface::settle(tx, instance);
    release_public_addresses(tx, instance);
}

/// Why it ended or failed, without being asked for.
fn because(instance: &mut Instance, message: &str) {
    instance.state_reason = Some(StateReason::new("Server.InternalError", message).into());
    instance.state_transition_reason = format!("Server.InternalError: {message}").into();
}

/// A first launch that fails undoes itself the way terminate does; a start that fails leaves the instance stopped.
fn failed(tx: &mut Tx<'_>, instance: &mut Instance, message: &str) {
    if !matches!(instance.state, InstanceState::Pending | InstanceState::Running) {
        return;
    }
    because(instance, message);
    if instance.state == InstanceState::Pending && instance.boot == 1 {
        instance.state = InstanceState::ShuttingDown;
    } else {
        instance.state = InstanceState::Stopped;
        instance.hold = None;
        attach::settle(tx, instance);
        interface::settle(tx, instance);
        release_public_addresses(tx, instance);
    }
}

/// Ends a launch or start that its host has not brought about in time, as if the host had said that it failed.
pub fn overdue(tx: &mut Tx<'_>, id: &str, since: Timestamp) {
    let Some(before) = tx.get::<Instance>(id) else { return };
    if before.state == InstanceState::Pending && before.launched_at <= since {
        let mut instance = (*before).clone();
        failed(tx, &mut instance, "The instance's host did not start it in time");
        tx.put(&instance);
    }
}

/// Nothing is left on the host: what was the instance's alone goes with it.
fn removed(tx: &mut Tx<'_>, instance: &mut Instance) {
    host_says(instance, Transition::HostRemoved);
    // Whoever waits for the guest to be down need not wait any more.
    instance.hold = None;
    instance.terminated_at = Some(tx.now());
    release_public_addresses(tx, instance);
    for mut interface in interfaces_of(tx, instance) {
        if interface.attachment.as_ref().is_none_or(|attachment| attachment.delete_on_termination) {
            interface.delete(tx);
        } else {
            interface.detached();
            tx.put(&interface);
        }
    }
    for disk in std::mem::take(&mut instance.disks) {
        let Some(volume) = tx.get::<Volume>(&disk.volume_id) else { continue };
        let attachment = volume.attachment_to(&instance.instance_id);
        let goes = attachment.is_none_or(|attachment| attachment.delete_on_termination);
        let left = volume.detached_from(&instance.instance_id);
        // Of several instances the last one decides.
        match goes && left.attachments.is_empty() {
            true => volume::create::delete(tx, &left),
            false => tx.put(&left),
        }
    }
    instance.interfaces.clear();
}

/// Stops every instance of a region, as StopInstances would: for the operator who ends the cloud with its guests.
pub async fn stop_all(control: &Control, region: &RegionState) -> Result<()> {
    let running = |tables: &Tables| -> Vec<Id> {
        let states = [InstanceState::Pending, InstanceState::Running];
        let instances =
            states.into_iter().flat_map(|state| tables.instances.with("instance-state-name", state.name()));
        instances.map(|instance| instance.instance_id.clone()).collect()
    };
    let ids = running(&region.view.read());
    transaction::transact(&*control.store, &region.view, &control.environment, |tx| {
        for id in &ids {
            let Some(before) = tx.get::<Instance>(id) else { continue };
            let mut instance = (*before).clone();
            if move_on(&mut instance, Transition::Stop, "stopped").is_ok() && instance != *before {
                instance.state_reason =
                    Some(StateReason::new("Server.ScheduledStop", "Stopped with the cloud").into());
                tx.put(&instance);
            }
        }
        Ok(())
    })
    .await?;
    let mut changes = region.view.changes();
    while region
        .view
        .read()
        .instances
        .with("instance-state-name", InstanceState::Stopping.name())
        .next()
        .is_some()
    {
        // Looked at again after every change; a lag only means that there were many.
        let _ = changes.recv().await;
    }
    Ok(())
}
