//! The state of the members of a running deployment.

use std::error::Error as _;

use etcd_client::{AlarmAction, AlarmType};
use futures::future::join_all;
use tokio::time::timeout;

use crate::model::{
    deployment::Member,
    failure::chain,
    limits::{OBSERVATION_LOGIN_TIMEOUT, OBSERVATION_TIMEOUT},
    observation::{
        Complaint, Degradation, MemberHealth, MemberObservation, MemberRole, Silence, SilenceCause,
    },
    version::Version,
};

use super::{
    addresses,
    client::{Dialer, Fault, UNAVAILABLE},
};

/// What is done when members are looked at.
const DOING: &str = "asking a member";

/// How a member says that its storage is full.
const NOSPACE: &str = "NOSPACE";
/// How it says that somebody does not hold what the others hold.
const CORRUPT: &str = "CORRUPT";

/// Why a member that answers cannot serve.
const NO_MAJORITY: Degradation = Degradation::Leaderless("has no majority behind it");

/// Asks all members at once; one that is down holds nobody up.
pub(super) async fn observe(dialer: &Dialer<'_>) -> Vec<MemberObservation> {
    let members = dialer.deployment.members.iter();
    join_all(members.map(|member| observe_one(dialer, member))).await
}

async fn observe_one(dialer: &Dialer<'_>, member: &Member) -> MemberObservation {
    let health = match timeout(OBSERVATION_TIMEOUT, ask(dialer, member)).await {
        Ok(Ok(health)) => health,
        Ok(Err(fault)) => MemberHealth::Silent(silence(fault)),
        Err(_) => MemberHealth::Silent(silence(Fault::Silent(OBSERVATION_TIMEOUT))),
    };
    MemberObservation {
        name: member.name.clone(),
        url: addresses::client_url(member),
        health,
    }
}

fn silence(fault: Fault) -> Silence {
    const DEADLINE_EXCEEDED: i32 = 4;
    let cause = match &fault {
        Fault::Silent(_) => SilenceCause::Slow,
        Fault::Call(etcd_client::Error::TransportError(_)) => SilenceCause::Unreachable,
        Fault::Call(etcd_client::Error::GRpcStatus(status)) => match status.code() as i32 {
            DEADLINE_EXCEEDED => SilenceCause::Slow,
            UNAVAILABLE => SilenceCause::Unreachable,
            // It broke off.
            _ if status.source().is_some() => SilenceCause::Unreachable,
            _ => SilenceCause::Refusing,
        },
        _ => SilenceCause::Refusing,
    };
    let told = chain(&fault.into_engine_error(DOING));
    // What was done stands before the reason, and goes without saying here.
    let reason = told
        .strip_prefix(DOING)
        .and_then(|rest| rest.strip_prefix(": "));
    Silence {
        cause,
        detail: reason.unwrap_or(&told).to_owned(),
    }
}

async fn ask(dialer: &Dialer<'_>, member: &Member) -> Result<MemberHealth, Fault> {
    let mut client = dialer.client(member).await?;
    let status = match client.status().await {
        // New versions tell their status to the administrator alone. Without a majority nobody can
        // log in, so the question without a name comes first.
        Err(etcd_client::Error::GRpcStatus(status)) if status.source().is_none() => {
            // It answers. Whether it lets anybody in, a majority has to agree.
            let let_in = timeout(OBSERVATION_LOGIN_TIMEOUT, dialer.become_root(&mut client));
            match let_in.await {
                Ok(Ok(())) => client.status().await?,
                Ok(Err(fault)) if !fault.lacks_majority() => return Err(fault),
                Ok(Err(_)) | Err(_) => return Ok(MemberHealth::Degraded(NO_MAJORITY)),
            }
        }
        other => other?,
    };
    if status.leader() == 0 {
        return Ok(MemberHealth::Degraded(NO_MAJORITY));
    }
    let id = status.header().map(etcd_client::ResponseHeader::member_id);
    let mut alarms_told = status.errors().to_vec();
    let own_id = id.unwrap_or_default();
    let mut differs = alarms_told
        .iter()
        .any(|text| tells_difference(text, own_id));
    let tells_alarms = version_tells_alarms(status.version());
    if !tells_alarms {
        let alarms = client
            .alarm(AlarmAction::Get, AlarmType::None, None)
            .await?;
        differs |= (alarms.alarms().iter())
            .any(|alarm| alarm.alarm() == AlarmType::Corrupt && alarm.member_id() == own_id);
        let names = alarms.alarms().iter().map(|alarm| match alarm.alarm() {
            AlarmType::Nospace => NOSPACE.to_owned(),
            other => format!("{other:?}").to_uppercase(),
        });
        alarms_told.extend(names);
    }
    let used = u64::try_from(status.raft_used_db_size()).unwrap_or_default();
    Ok(MemberHealth::Serving {
        role: MemberRole::of(id == Some(status.leader())),
        version: status.version().to_owned(),
        database_bytes: u64::try_from(status.db_size()).unwrap_or_default(),
        changes: status.header().map_or(0, |header| header.revision()),
        used_bytes: tells_alarms.then_some(used),
        is_full: alarms_told.iter().any(|text| text.contains(NOSPACE)),
        differs,
        complaints: complaints(&alarms_told),
    })
}

/// What alarms say, each once: every member tells those of all.
fn complaints(alarms: &[String]) -> Vec<Complaint> {
    let mut complaints: Vec<Complaint> = Vec::new();
    for alarm in alarms {
        let complaint = match alarm.trim() {
            full if full.contains(NOSPACE) => Complaint::Full,
            differs if differs.contains(CORRUPT) => Complaint::Differs,
            other => Complaint::Other(other.to_owned()),
        };
        if !complaints.contains(&complaint) {
            complaints.push(complaint);
        }
    }
    complaints
}

/// Whether an alarm says of the member of this id that it does not hold what the others hold. It is
/// etcd's own text of an alarm, which is told by every member: `memberID:15 alarm:CORRUPT`.
fn tells_difference(alarm: &str, id: u64) -> bool {
    let is_of = |word: &str| word.strip_prefix("memberID:") == Some(&id.to_string());
    alarm.contains(CORRUPT) && alarm.split_whitespace().any(is_of)
}

/// Versions before 3.4 tell neither alarms nor what of the storage is in use with their status.
fn version_tells_alarms(version: &str) -> bool {
    let version = version.parse::<Version>();
    version.is_ok_and(|version| version.line() >= (3, 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_alarm_is_a_complaint_once_whichever_member_has_it() {
        let alarms = [
            "memberID:1 alarm:NOSPACE ",
            "memberID:2 alarm:NOSPACE ",
            "memberID:2 alarm:CORRUPT ",
            "etcdserver: no leader ",
        ];
        assert_eq!(
            complaints(&alarms.map(str::to_owned)),
            [
                Complaint::Full,
                Complaint::Differs,
                Complaint::Other("etcdserver: no leader".to_owned())
            ]
        );
    }

    #[test]
    fn an_alarm_tells_whose_data_differs() {
        for text in ["memberID:15 alarm:CORRUPT ", "memberID:15  alarm:CORRUPT"] {
            assert!(tells_difference(text, 15), "{text}");
            assert!(!tells_difference(text, 1), "{text}");
            assert!(!tells_difference(text, 151), "{text}");
        }
        assert!(!tells_difference("memberID:15 alarm:NOSPACE ", 15));
        assert!(!tells_difference("alarm:CORRUPT ", 0));
    }
}
