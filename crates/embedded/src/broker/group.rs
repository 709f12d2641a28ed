//! Consumer groups of the classic protocol: members, generations, committed offsets.
//!
//! [`GroupState`] is pure: time is handed in. Whoever waits for others (JoinGroup, SyncGroup) does
//! so in `api::group`, on [`Group::changed`].

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;
use tokio::sync::Notify;

use super::state::lock;

/// How long the first member of an empty group waits for others. Kafka's default is 3 s, which
/// only makes sense where many consumers start together.
const FIRST_JOIN_DELAY: Duration = Duration::from_millis(100);
const MAX_GROUPS: usize = 10_000;
const MAX_MEMBERS: usize = 1_000;
const MAX_TIMEOUT: Duration = Duration::from_secs(1_800);

/// All groups.
#[derive(Debug, Default)]
pub(crate) struct Groups(Mutex<BTreeMap<String, Arc<Group>>>);

/// One group, and the bell that rings at its every change.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) state: Mutex<GroupState>,
    pub(crate) changed: Notify,
}

impl Groups {
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Group>> {
        lock(&self.0).get(id).cloned()
    }

    /// The group, made on first use; `None` when there are too many.
    pub(crate) fn get_or_create(&self, id: &str) -> Option<Arc<Group>> {
        let mut groups = lock(&self.0);
        if !groups.contains_key(id) && groups.len() >= MAX_GROUPS {
            return None;
        }
        Some(groups.entry(id.to_owned()).or_default().clone())
    }

    pub(crate) fn all(&self) -> Vec<(String, Arc<Group>)> {
        lock(&self.0).iter().map(|(id, group)| (id.clone(), group.clone())).collect()
    }

    /// Deletes a group without members.
    pub(crate) fn delete(&self, id: &str) -> Result<(), ResponseError> {
        let mut groups = lock(&self.0);
        let group = groups.get(id).ok_or(ResponseError::GroupIdNotFound)?;
        if !lock(&group.state).members.is_empty() {
            return Err(ResponseError::NonEmptyGroup);
        }
        groups.remove(id);
        Ok(())
    }

    pub(crate) fn forget_topic(&self, topic: &str) {
        for (_, group) in self.all() {
            lock(&group.state).offsets.retain(|(name, _), _| name != topic);
        }
    }

    /// Lets time pass in every group.
    pub(crate) fn tick(&self, now: Instant) {
        for (_, group) in self.all() {
            if lock(&group.state).tick(now) {
                group.changed.notify_waiters();
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    #[default]
    Empty,
    /// Members join; over when all have and `earliest` is past, or at `deadline`.
    Preparing {
        earliest: Instant,
        deadline: Instant,
    },
    /// The leader's assignment is awaited.
    Completing,
    Stable,
}

impl Phase {
    /// The name Kafka shows.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Phase::Empty => "Empty",
            Phase::Preparing { .. } => "PreparingRebalance",
            Phase::Completing => "CompletingRebalance",
            Phase::Stable => "Stable",
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) instance_id: Option<StrBytes>,
    pub(crate) client_id: StrBytes,
    pub(crate) assignment: Bytes,
    /// `(name, metadata)` in the member's order of preference.
    pub(crate) protocols: Vec<(StrBytes, Bytes)>,
    session: Duration,
    rebalance: Duration,
    last_seen: Instant,
    /// Has joined the round that is being prepared.
    joined: bool,
}

/// What a member says when it joins.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    pub(crate) member_id: StrBytes,
    pub(crate) instance_id: Option<StrBytes>,
    pub(crate) client_id: StrBytes,
    pub(crate) protocol_type: StrBytes,
    pub(crate) protocols: Vec<(StrBytes, Bytes)>,
    pub(crate) session: Duration,
    pub(crate) rebalance: Duration,
    /// New members are told their id and must come again with it (KIP-394).
    pub(crate) id_required: bool,
    /// The id to give to a member without one.
    pub(crate) fresh_id: StrBytes,
}

/// How a join went.
#[derive(Debug, PartialEq)]
pub(crate) enum Joining {
    /// Come again with this id.
    IdRequired(StrBytes),
    /// Wait under this id until [`GroupState::joined`] answers.
    Wait(StrBytes),
    Refused(ResponseError),
}

/// A finished round, for one member.
#[derive(Debug, PartialEq)]
pub(crate) struct Joined {
    pub(crate) generation: i32,
    pub(crate) protocol: StrBytes,
    pub(crate) leader: StrBytes,
    /// `(member id, instance id, metadata)`; only for the leader.
    pub(crate) members: Vec<(StrBytes, Option<StrBytes>, Bytes)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: Option<StrBytes>,
}

#[derive(Debug, Default)]
pub(crate) struct GroupState {
    pub(crate) phase: Phase,
    pub(crate) generation: i32,
    pub(crate) protocol_type: StrBytes,
    pub(crate) protocol: StrBytes,
    pub(crate) members: BTreeMap<StrBytes, Member>,
    pub(crate) offsets: HashMap<(String, i32), Committed>,
    leader: StrBytes,
    /// Ids given out whose members have not joined yet, with when they lapse.
    promised: HashMap<StrBytes, Instant>,
}

impl GroupState {
    pub(crate) fn join(&mut self, join: Join, now: Instant) -> Joining {
        if join.session.is_zero() || join.session > MAX_TIMEOUT {
            return Joining::Refused(ResponseError::InvalidSessionTimeout);
        }
        if !self.speaks(&join) {
            return Joining::Refused(ResponseError::InconsistentGroupProtocol);
        }
        let known = self.members.contains_key(&join.member_id);
        let promised = self.promised.contains_key(&join.member_id);
        if !join.member_id.is_empty() && !known && !promised {
            return Joining::Refused(ResponseError::UnknownMemberId);
        }
        if !known && self.members.len() + self.promised.len() >= MAX_MEMBERS {
            return Joining::Refused(ResponseError::GroupMaxSizeReached);
        }
        let mut id = join.member_id.clone();
        if id.is_empty() {
            id = join.fresh_id.clone();
            if join.id_required && join.instance_id.is_none() {
                self.promised.insert(id.clone(), now + join.session);
                return Joining::IdRequired(id);
            }
        }
        self.promised.remove(&id);
        // A static member that comes back takes the place of its former self.
        if join.instance_id.is_some() {
            self.members.retain(|other, m| *other == id || m.instance_id != join.instance_id);
        }
        self.protocol_type = join.protocol_type;
        let member = Member {
            instance_id: join.instance_id,
            client_id: join.client_id,
            assignment: Bytes::new(),
            protocols: join.protocols,
            session: join.session,
            rebalance: join.rebalance.min(MAX_TIMEOUT),
            last_seen: now,
            joined: true,
        };
        self.members.insert(id.clone(), member);
        self.prepare(now);
        if let Some(member) = self.members.get_mut(&id) {
            member.joined = true;
        }
        self.tick(now);
        Joining::Wait(id)
    }

    /// Whether a joiner has the group's protocol type and a protocol that all others know.
    fn speaks(&self, join: &Join) -> bool {
        let mut others = self.members.iter().filter(|(id, _)| **id != join.member_id).peekable();
        if others.peek().is_some() && join.protocol_type != self.protocol_type {
            return false;
        }
        let others: Vec<&Member> = others.map(|(_, member)| member).collect();
        let common =
            |name: &StrBytes| others.iter().all(|m| m.protocols.iter().any(|p| p.0 == *name));
        join.protocols.iter().any(|(name, _)| common(name))
    }

    /// Begins a round unless one is being prepared.
    fn prepare(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Preparing { .. }) {
            return;
        }
        let delay = if self.phase == Phase::Empty { FIRST_JOIN_DELAY } else { Duration::ZERO };
        let patience = self.members.values().map(|m| m.rebalance).max().unwrap_or_default();
        for member in self.members.values_mut() {
            member.joined = false;
        }
        let deadline = now + patience.max(delay);
        self.phase = Phase::Preparing { earliest: now + delay, deadline };
    }

    /// The round's result for a member that waits: `None` while it goes on.
    pub(crate) fn joined(&self, member_id: &StrBytes) -> Option<Result<Joined, ResponseError>> {
        let Some(member) = self.members.get(member_id) else {
            return Some(Err(ResponseError::UnknownMemberId));
        };
        if member.joined {
            return None;
        }
        let metadata = |m: &Member| {
            let found = m.protocols.iter().find(|p| p.0 == self.protocol);
            found.map(|p| p.1.clone()).unwrap_or_default()
        };
        let members = if *member_id == self.leader {
            let all = self.members.iter();
            all.map(|(id, m)| (id.clone(), m.instance_id.clone(), metadata(m))).collect()
        } else {
            Vec::new()
        };
        Some(Ok(Joined {
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members,
        }))
    }

    /// Lets time pass: members that were silent too long go, a due round ends. Answers whether
    /// anything changed.
    pub(crate) fn tick(&mut self, now: Instant) -> bool {
        self.promised.retain(|_, lapses| *lapses > now);
        let before = self.members.len();
        // Who waits in JoinGroup cannot send heartbeats.
        self.members.retain(|_, m| m.joined || m.last_seen + m.session > now);
        let mut changed = self.members.len() != before;
        if changed {
            self.after_departure(now);
        }
        if let Phase::Preparing { earliest, deadline } = self.phase {
            let all = self.members.values().all(|m| m.joined);
            if now >= deadline || (all && now >= earliest) {
                self.complete(now);
                changed = true;
            }
        }
        changed
    }

    /// When [`GroupState::tick`] is due at the latest for a round to end in time.
    pub(crate) fn next_due(&self, now: Instant) -> Duration {
        match self.phase {
            Phase::Preparing { earliest, .. } if earliest > now => earliest - now,
            Phase::Preparing { deadline, .. } => deadline.saturating_duration_since(now),
            _ => Duration::from_secs(1),
        }
    }

    fn after_departure(&mut self, now: Instant) {
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            self.generation = self.generation.wrapping_add(1).max(0);
        } else {
            self.prepare(now);
        }
    }

    /// Ends the round: who has not joined is out, the leader is chosen, assignments are awaited.
    fn complete(&mut self, now: Instant) {
        self.members.retain(|_, m| m.joined);
        self.generation = self.generation.wrapping_add(1).max(1);
        let Some(first) = self.members.keys().next().cloned() else {
            self.phase = Phase::Empty;
            return;
        };
        if !self.members.contains_key(&self.leader) {
            self.leader = first;
        }
        let offered = self.members.get(&self.leader).map(|m| m.protocols.clone());
        let common = |name: &StrBytes| {
            self.members.values().all(|m| m.protocols.iter().any(|p| p.0 == *name))
        };
        let chosen = offered.unwrap_or_default().into_iter().map(|p| p.0).find(common);
        self.protocol = chosen.unwrap_or_default();
        for member in self.members.values_mut() {
            member.joined = false;
            member.last_seen = now;
            member.assignment = Bytes::new();
        }
        self.phase = Phase::Completing;
    }

    /// Checks that a request comes from a member of this generation, and notes its sign of life.
    pub(crate) fn seen(
        &mut self,
        member_id: &StrBytes,
        generation: i32,
        now: Instant,
    ) -> Result<(), ResponseError> {
        let member = self.members.get_mut(member_id).ok_or(ResponseError::UnknownMemberId)?;
        if generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        member.last_seen = now;
        Ok(())
    }

    /// A heartbeat: the member lives; it is told to join when a round is being prepared.
    pub(crate) fn heartbeat(
        &mut self,
        member_id: &StrBytes,
        generation: i32,
        now: Instant,
    ) -> Result<(), ResponseError> {
        self.seen(member_id, generation, now)?;
        match self.phase {
            Phase::Preparing { .. } => Err(ResponseError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Takes the leader's assignments, or nothing from others. `None` while the leader's are
    /// awaited.
    pub(crate) fn sync(
        &mut self,
        member_id: &StrBytes,
        generation: i32,
        assignments: Vec<(StrBytes, Bytes)>,
        now: Instant,
    ) -> Option<Result<Bytes, ResponseError>> {
        if let Err(error) = self.seen(member_id, generation, now) {
            return Some(Err(error));
        }
        if self.phase == Phase::Completing && *member_id == self.leader {
            for (id, assignment) in assignments {
                if let Some(member) = self.members.get_mut(&id) {
                    member.assignment = assignment;
                }
            }
            self.phase = Phase::Stable;
        }
        match self.phase {
            Phase::Stable => self.members.get(member_id).map(|m| Ok(m.assignment.clone())),
            Phase::Completing => None,
            _ => Some(Err(ResponseError::RebalanceInProgress)),
        }
    }

    /// A member leaves, by its id or, where that is empty, by its instance id.
    pub(crate) fn leave(
        &mut self,
        member_id: &StrBytes,
        instance_id: Option<&StrBytes>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        if self.promised.remove(member_id).is_some() {
            return Ok(());
        }
        let by_instance =
            |m: &Member| instance_id.is_some() && m.instance_id.as_ref() == instance_id;
        let found = self
            .members
            .iter()
            .find(|(id, m)| if member_id.is_empty() { by_instance(m) } else { *id == member_id });
        let id = found.map(|(id, _)| id.clone()).ok_or(ResponseError::UnknownMemberId)?;
        self.members.remove(&id);
        self.after_departure(now);
        self.tick(now);
        Ok(())
    }

    /// Whether a commit by this member, or by nobody (`-1` and no id), may be taken.
    pub(crate) fn may_commit(
        &mut self,
        member_id: &StrBytes,
        generation: i32,
        now: Instant,
    ) -> Result<(), ResponseError> {
        if generation < 0 && member_id.is_empty() {
            let free = self.members.is_empty();
            return if free { Ok(()) } else { Err(ResponseError::UnknownMemberId) };
        }
        self.seen(member_id, generation, now)?;
        match self.phase {
            Phase::Completing => Err(ResponseError::RebalanceInProgress),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn join(id: &str, protocols: &[&str]) -> Join {
        let text = |s: &str| StrBytes::from_string(s.to_owned());
        Join {
            member_id: text(id),
            instance_id: None,
            client_id: text("client"),
            protocol_type: text("consumer"),
            protocols: protocols.iter().map(|p| (text(p), Bytes::from_static(b"meta"))).collect(),
            session: 10 * SECOND,
            rebalance: 60 * SECOND,
            id_required: false,
            fresh_id: text(&format!("fresh-{}", protocols.join("-"))),
        }
    }

    fn enter(group: &mut GroupState, protocols: &[&str], now: Instant) -> StrBytes {
        match group.join(join("", protocols), now) {
            Joining::Wait(id) => id,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn two_members_agree_on_a_protocol_and_the_leader_assigns() {
        let (mut group, t0) = (GroupState::default(), Instant::now());
        let a = enter(&mut group, &["range", "rr"], t0);
        assert!(group.joined(&a).is_none(), "waits for others");
        let b = enter(&mut group, &["rr"], t0);
        let t1 = t0 + FIRST_JOIN_DELAY;
        assert!(group.tick(t1));
        let first = group.joined(&a).unwrap().unwrap();
        let second = group.joined(&b).unwrap().unwrap();
        assert_eq!((&*first.protocol, first.generation), ("rr", 1));
        assert_eq!(first.leader, a);
        assert_eq!((first.members.len(), second.members.len()), (2, 0));
        assert!(group.sync(&b, 1, vec![], t1).is_none(), "waits for the leader");
        let plan = vec![(a.clone(), Bytes::from("A")), (b.clone(), Bytes::from("B"))];
        assert_eq!(group.sync(&a, 1, plan, t1), Some(Ok(Bytes::from("A"))));
        assert_eq!(group.sync(&b, 1, vec![], t1), Some(Ok(Bytes::from("B"))));
        assert_eq!(group.heartbeat(&b, 1, t1), Ok(()));
        assert_eq!(group.heartbeat(&b, 0, t1), Err(ResponseError::IllegalGeneration));
    }

    #[test]
    fn a_silent_member_goes_and_the_others_are_told() {
        let (mut group, t0) = (GroupState::default(), Instant::now());
        let (a, b) = (enter(&mut group, &["x"], t0), enter(&mut group, &["x", "y"], t0));
        let t1 = t0 + SECOND;
        group.tick(t1);
        group.sync(&a, 1, vec![], t1);
        let t2 = t1 + 9 * SECOND;
        assert_eq!(group.heartbeat(&a, 1, t2), Ok(()));
        assert!(group.tick(t1 + 10 * SECOND));
        assert_eq!(group.heartbeat(&b, 1, t2), Err(ResponseError::UnknownMemberId));
        assert_eq!(group.heartbeat(&a, 1, t2), Err(ResponseError::RebalanceInProgress));
        let t3 = t1 + 11 * SECOND;
        assert_eq!(group.join(join(&a, &["x"]), t3), Joining::Wait(a.clone()));
        assert_eq!(group.joined(&a).unwrap().unwrap().generation, 2);
    }

    #[test]
    fn who_does_not_rejoin_is_out_at_the_deadline() {
        let (mut group, t0) = (GroupState::default(), Instant::now());
        let a = enter(&mut group, &["x"], t0);
        group.tick(t0 + SECOND);
        group.sync(&a, 1, vec![], t0 + SECOND);
        let t1 = t0 + 2 * SECOND;
        let b = enter(&mut group, &["x", "y"], t1);
        for second in 0..60 {
            let _ = group.heartbeat(&a, 1, t1 + second * SECOND);
            assert!(!group.tick(t1 + second * SECOND));
        }
        assert!(group.tick(t1 + 60 * SECOND));
        assert_eq!(group.joined(&b).unwrap().unwrap().leader, b);
        assert_eq!(group.joined(&a), Some(Err(ResponseError::UnknownMemberId)));
    }

    #[test]
    fn new_members_are_told_their_id_first() {
        let (mut group, t0) = (GroupState::default(), Instant::now());
        let mut ask = join("", &["x"]);
        ask.id_required = true;
        let Joining::IdRequired(id) = group.join(ask.clone(), t0) else { panic!() };
        ask.member_id = id.clone();
        assert_eq!(group.join(ask.clone(), t0), Joining::Wait(id));
        ask.member_id = StrBytes::from_static_str("made up");
        assert_eq!(group.join(ask, t0), Joining::Refused(ResponseError::UnknownMemberId));
        let strange = join("", &["other"]);
        let refused = Joining::Refused(ResponseError::InconsistentGroupProtocol);
        assert_eq!(group.join(strange, t0), refused);
    }

    #[test]
    fn leaving_and_static_members() {
        let (mut group, t0) = (GroupState::default(), Instant::now());
        let mut fixed = join("", &["x"]);
        fixed.instance_id = Some(StrBytes::from_static_str("one"));
        let Joining::Wait(_) = group.join(fixed.clone(), t0) else { panic!() };
        fixed.fresh_id = StrBytes::from_static_str("again");
        let Joining::Wait(again) = group.join(fixed.clone(), t0) else { panic!() };
        assert_eq!(group.members.keys().collect::<Vec<_>>(), [&again]);
        let nobody = StrBytes::new();
        assert_eq!(group.leave(&nobody, None, t0), Err(ResponseError::UnknownMemberId));
        assert_eq!(group.leave(&nobody, fixed.instance_id.as_ref(), t0), Ok(()));
        assert_eq!(group.phase, Phase::Empty);
    }

    #[test]
    fn who_may_commit() {
        let (mut group, t0) = (GroupState::default(), Instant::now());
        let nobody = StrBytes::new();
        assert_eq!(group.may_commit(&nobody, -1, t0), Ok(()));
        let a = enter(&mut group, &["x"], t0);
        group.tick(t0 + SECOND);
        assert_eq!(group.may_commit(&nobody, -1, t0), Err(ResponseError::UnknownMemberId));
        assert_eq!(group.may_commit(&a, 1, t0), Err(ResponseError::RebalanceInProgress));
        group.sync(&a, 1, vec![], t0);
        assert_eq!(group.may_commit(&a, 1, t0), Ok(()));
        assert_eq!(group.may_commit(&a, 7, t0), Err(ResponseError::IllegalGeneration));
    }
}
