//! Being a member: JoinGroup, SyncGroup, Heartbeat, LeaveGroup.

use std::time::{Duration, Instant};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::broker::group::{Join, Joined, Joining};
use crate::broker::state::{Broker, lock};

fn millis(number: i32) -> Duration {
    Duration::from_millis(u64::try_from(number).unwrap_or(0))
}

pub(super) async fn join(
    broker: &Broker,
    request: JoinGroupRequest,
    client_id: StrBytes,
    version: i16,
) -> JoinGroupResponse {
    // Before version 7 the protocol name cannot be null.
    let no_name = if version >= 7 { None } else { Some(StrBytes::new()) };
    let refused = |error: ResponseError, member_id: StrBytes| {
        JoinGroupResponse::default()
            .with_error_code(error.code())
            .with_generation_id(-1)
            .with_protocol_name(no_name.clone())
            .with_member_id(member_id)
    };
    if request.group_id.is_empty() {
        return refused(ResponseError::InvalidGroupId, request.member_id);
    }
    let Some(group) = broker.groups.get_or_create(&request.group_id) else {
        return refused(ResponseError::PolicyViolation, request.member_id);
    };
    let asked = wish(&request, client_id, version);
    let outcome = lock(&group.state).join(asked, Instant::now());
    group.changed.notify_waiters();
    let id = match outcome {
        Joining::Wait(id) => id,
        Joining::IdRequired(id) => return refused(ResponseError::MemberIdRequired, id),
        Joining::Refused(error) => return refused(error, request.member_id),
    };
    loop {
        let changed = group.changed.notified();
        let (result, due) = {
            let mut state = lock(&group.state);
            let now = Instant::now();
            if state.tick(now) {
                group.changed.notify_waiters();
            }
            (state.joined(&id), state.next_due(now))
        };
        match result {
            Some(Ok(joined)) => return accepted(joined, id, request.protocol_type, version),
            Some(Err(error)) => return refused(error, id),
            None => {
                let _ = tokio::time::timeout(due, changed).await;
            }
        }
    }
}

fn wish(request: &JoinGroupRequest, client_id: StrBytes, version: i16) -> Join {
    let session = millis(request.session_timeout_ms);
    let protocols = request.protocols.iter();
    Join {
        member_id: request.member_id.clone(),
        instance_id: request.group_instance_id.clone(),
        fresh_id: StrBytes::from_string(format!("{}-{}", &*client_id, Uuid::new_v4())),
        client_id,
        protocol_type: request.protocol_type.clone(),
        protocols: protocols.map(|p| (p.name.clone(), p.metadata.clone())).collect(),
        session,
        // Version 0 knows one timeout only.
        rebalance: if version == 0 { session } else { millis(request.rebalance_timeout_ms) },
        id_required: version >= 4,
    }
}

fn accepted(joined: Joined, id: StrBytes, kind: StrBytes, version: i16) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|(id, instance, metadata)| {
        let instance = if version >= 5 { instance } else { None };
        JoinGroupResponseMember::default()
            .with_member_id(id)
            .with_group_instance_id(instance)
            .with_metadata(metadata)
    });
    let answer = JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_name(Some(joined.protocol))
        .with_leader(joined.leader)
        .with_member_id(id)
        .with_members(members.collect());
    if version >= 7 { answer.with_protocol_type(Some(kind)) } else { answer }
}

pub(super) async fn sync(broker: &Broker, request: SyncGroupRequest) -> SyncGroupResponse {
    let refused = |error: ResponseError| SyncGroupResponse::default().with_error_code(error.code());
    let Some(group) = broker.groups.get(&request.group_id) else {
        return refused(ResponseError::UnknownMemberId);
    };
    let assignments = request.assignments.into_iter().map(|a| (a.member_id, a.assignment));
    let mut assignments: Vec<_> = assignments.collect();
    loop {
        let changed = group.changed.notified();
        let (result, names) = {
            let mut state = lock(&group.state);
            let plan = std::mem::take(&mut assignments);
            let result =
                state.sync(&request.member_id, request.generation_id, plan, Instant::now());
            (result, (state.protocol_type.clone(), state.protocol.clone()))
        };
        match result {
            Some(Ok(assignment)) => {
                group.changed.notify_waiters();
                return SyncGroupResponse::default()
                    .with_protocol_type(Some(names.0))
                    .with_protocol_name(Some(names.1))
                    .with_assignment(assignment);
            }
            Some(Err(error)) => return refused(error),
            // Looks again each second, which also counts as a sign of life.
            None => {
                let _ = tokio::time::timeout(Duration::from_secs(1), changed).await;
            }
        }
    }
}

pub(super) fn heartbeat(broker: &Broker, request: &HeartbeatRequest) -> HeartbeatResponse {
    let result = match broker.groups.get(&request.group_id) {
        None => Err(ResponseError::UnknownMemberId),
        Some(group) => {
            lock(&group.state).heartbeat(&request.member_id, request.generation_id, Instant::now())
        }
    };
    HeartbeatResponse::default().with_error_code(code(result))
}

pub(super) fn leave(
    broker: &Broker,
    request: LeaveGroupRequest,
    version: i16,
) -> LeaveGroupResponse {
    let group = broker.groups.get(&request.group_id);
    let one = |id: &StrBytes, instance: Option<&StrBytes>| match &group {
        None => Err(ResponseError::UnknownMemberId),
        Some(group) => {
            let result = lock(&group.state).leave(id, instance, Instant::now());
            group.changed.notify_waiters();
            result
        }
    };
    if version < 3 {
        let error = code(one(&request.member_id, None));
        return LeaveGroupResponse::default().with_error_code(error);
    }
    let members = request.members.into_iter().map(|m| {
        let error = code(one(&m.member_id, m.group_instance_id.as_ref()));
        MemberResponse::default()
            .with_member_id(m.member_id)
            .with_group_instance_id(m.group_instance_id)
            .with_error_code(error)
    });
    LeaveGroupResponse::default().with_members(members.collect())
}

fn code(result: Result<(), ResponseError>) -> i16 {
    result.err().map_or(0, |error| error.code())
}
