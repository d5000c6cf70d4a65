//! Changes of a usable instance: when two requests are the same, what its members go through, and
//! which of them is next. Pure.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{deployment::Shape, duration::duration, limits::CHANGE_WAIT};

/// What an update asks for: two that ask for the same are the same request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpdateIdentity {
    /// The parameters in normal form, see [`super::instance::normal_form`].
    pub parameters: Value,
    /// OSB `maintenance_info.version`.
    pub maintenance_version: Option<String>,
}

/// What an update was accepted with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// What it was asked for with, to recognise a repeat.
    pub request: UpdateIdentity,
    /// What the deployment was.
    pub from: Shape,
    /// What the members become, one shape after the other; the last is what was asked for.
    pub path: Vec<Shape>,
    /// The instance's parameters afterwards.
    pub parameters: Value,
}

impl Change {
    /// What the deployment is afterwards.
    pub fn goal(&self) -> Shape {
        self.path.last().copied().unwrap_or(self.from)
    }

    /// What the members of a deployment that is `now` so far become next: the goal, once it is
    /// reached.
    pub fn next(&self, now: Shape) -> Shape {
        let reached = self.path.iter().position(|shape| *shape == now);
        let next = reached.map_or(0, |index| index + 1);
        self.path.get(next).copied().unwrap_or(self.goal())
    }

    /// Whether the members run another version afterwards.
    pub fn upgrades(&self) -> bool {
        self.from.version != self.goal().version
    }
}

/// What a change of members waits for, and for how long.
pub fn waits_for_members() -> String {
    format!(
        "members are changed only while all of them serve: a change waits for what is under way before it, then \
         some {} for the members, and then fails with nothing changed",
        duration(TimeDelta::from_std(CHANGE_WAIT).unwrap_or(TimeDelta::MAX))
    )
}

/// The parameters that an instance has after an update: those that the update names are replaced,
/// all others stay.
pub fn merged(parameters: &Value, update: &Value) -> Value {
    match (parameters, update) {
        (Value::Object(old), Value::Object(new)) => {
            let mut all = old.clone();
            all.extend(new.clone());
            Value::Object(all)
        }
        (_, update) => update.clone(),
    }
}

/// Whether a database of this size may get the quota of `shape`. One that fills it would take no
/// more writes.
pub fn fits(database_bytes: u64, shape: Shape) -> bool {
    database_bytes < shape.quota_bytes()
}

/// How a member stands while members are changed one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberProgress {
    /// It was changed already.
    pub moved: bool,
    /// It serves.
    pub serves: bool,
    /// It leads.
    pub leads: bool,
}

/// What is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The member that is changed, by its place.
    pub member: usize,
    /// The member that leads from then on, when the one that is changed led so far.
    pub heir: Option<usize>,
}

/// The member that is changed next: one that does not serve anyhow, then followers, and the leader
/// last. None when all are changed.
pub fn next_move(members: &[MemberProgress]) -> Option<Move> {
    let waiting = || members.iter().enumerate().filter(|(_, m)| !m.moved);
    let (member, standing) = waiting().min_by_key(|(_, m)| (m.serves, m.leads))?;
    let heir = members.iter().position(|m| m.moved && m.serves);
    Some(Move {
        member,
        heir: heir.filter(|_| standing.leads),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn shape(version: &str, units: u32) -> Shape {
        Shape {
            version: version.parse().expect("a version"),
            units,
        }
    }

    fn change(from: Shape, path: &[Shape]) -> Change {
        Change {
            request: UpdateIdentity {
                parameters: json!({}),
                maintenance_version: None,
            },
            from,
            path: path.to_vec(),
            parameters: json!({}),
        }
    }

    #[test]
    fn members_go_through_every_shape_on_the_path() {
        let (from, between, goal) = (shape("3.3.25", 1), shape("3.4.23", 2), shape("3.5.30", 2));
        let change = change(from, &[between, goal]);
        assert_eq!(change.next(from), between);
        assert_eq!(change.next(between), goal);
        assert_eq!(change.next(goal), goal);
        assert_eq!(change.goal(), goal);
        assert!(change.upgrades());
    }

    #[test]
    fn a_new_size_is_no_new_version() {
        let change = change(shape("3.5.30", 1), &[shape("3.5.30", 2)]);
        assert!(!change.upgrades());
    }

    #[test]
    fn an_update_keeps_what_it_does_not_name() {
        let old = json!({ "units": 1, "db_version": "3.4.23" });
        assert_eq!(merged(&old, &json!({})), old);
        let expected = json!({ "units": 3, "db_version": "3.4.23" });
        assert_eq!(merged(&old, &json!({ "units": 3 })), expected);
    }

    #[test]
    fn a_full_quota_is_too_small() {
        let one = shape("3.5.30", 1);
        assert!(fits(one.quota_bytes() - 1, one));
        assert!(!fits(one.quota_bytes(), one));
    }

    fn any_progress() -> impl Strategy<Value = MemberProgress> {
        (any::<bool>(), any::<bool>()).prop_map(|(moved, serves)| MemberProgress {
            moved,
            serves,
            leads: false,
        })
    }

    proptest! {
        #[test]
        fn the_leader_is_last_and_hands_over_to_one_that_is_done(
            mut members in prop::collection::vec(any_progress(), 1..6),
            leader in any::<prop::sample::Index>(),
        ) {
            let leader = leader.index(members.len());
            members[leader].serves = true;
            members[leader].leads = true;
            match next_move(&members) {
                None => prop_assert!(members.iter().all(|m| m.moved)),
                Some(next) => {
                    prop_assert!(!members[next.member].moved);
                    let others = || members.iter().enumerate().filter(|(i, _)| *i != leader);
                    if next.member == leader {
                        prop_assert!(others().all(|(_, m)| m.moved));
                    }
                    // While one is down that can be changed, no other one is taken away.
                    let down = members.iter().any(|m| !m.moved && !m.serves);
                    prop_assert!(!down || !members[next.member].serves);
                    match next.heir {
                        Some(heir) => {
                            prop_assert!(next.member == leader && heir != leader);
                            prop_assert!(members[heir].moved && members[heir].serves);
                        }
                        None => prop_assert!(
                            next.member != leader || others().all(|(_, m)| !m.serves)
                        ),
                    }
                }
            }
        }

        #[test]
        fn every_member_is_changed_once(count in 1usize..6, leader in any::<prop::sample::Index>()) {
            let mut members = vec![MemberProgress { moved: false, serves: true, leads: false }; count];
            let mut leader = leader.index(count);
            let mut moves = 0;
            while let Some(next) = {
                members.iter_mut().enumerate().for_each(|(i, m)| m.leads = i == leader);
                next_move(&members)
            } {
                if let Some(heir) = next.heir {
                    leader = heir;
                }
                members[next.member].moved = true;
                moves += 1;
            }
            prop_assert_eq!(moves, count);
        }
    }
}
