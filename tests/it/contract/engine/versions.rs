//! What an engine's members hold to on their way to another line of versions, and back.

use compose_broker::{
    engine::Passage,
    model::{deployment::Shape, engine::FilesOfMember, version::Version},
    provisioner::files_of,
};

use super::{Deployed, Kind, user};
use crate::broker::eventually;

impl Deployed {
    /// Starts the member at `place` anew, as it is decided.
    async fn begin_anew(&self, kind: &impl Kind, place: usize) {
        let server = &kind.engine().servers(self.site())[place];
        kind.provisioner().start(server).await.expect("started");
        self.ready(kind).await;
    }

    /// The name of each member's last file of these.
    async fn last_files(&self, kind: &impl Kind, wanted: &FilesOfMember) -> Vec<Option<String>> {
        let (provisioner, mut last) = (kind.provisioner(), Vec::new());
        for member in &self.deployment.members {
            let files = files_of(&provisioner, &self.deployment.id, &member.name, wanted);
            let mut files = files.await.expect("files");
            last.push(files.pop().map(|file| file.name));
        }
        last
    }

    /// Has each member write its state down.
    async fn checkpoint(&mut self, kind: &impl Kind) {
        for place in 0..self.deployment.members.len() {
            self.deployment.members[place].checkpointing = true;
            self.begin_anew(kind, place).await;
        }
        let checkpoints = kind.engine().profile().checkpoints;
        let before = self.last_files(kind, &checkpoints).await;
        let filled = kind.engine().pass(self.site(), Passage::FillLogs).await;
        filled.expect("filled");
        eventually("a newer checkpoint of each member", || async {
            let now = self.last_files(kind, &checkpoints).await;
            let mut pairs = now.iter().zip(&before);
            pairs.all(|(now, before)| now > before).then_some(())
        })
        .await;
        for member in &mut self.deployment.members {
            member.checkpointing = false;
        }
    }

    /// Takes each member to a version; the others serve meanwhile.
    async fn become_version(&mut self, kind: &impl Kind, version: Version) {
        let shape = Shape { version, units: 1 };
        for place in 0..self.deployment.members.len() {
            self.deployment.members[place].shape = Some(shape);
            self.begin_anew(kind, place).await;
        }
        self.deployment = self.deployment.clone().reshaped(shape);
    }

    /// Waits until the members have agreed on the line of a version.
    async fn agree_on(&self, kind: &impl Kind, version: Version) {
        eventually("a version that is agreed on", || async {
            let agreed = kind.engine().agreed_version(self.site()).await.ok()?;
            agreed.same_line(&version).then_some(())
        })
        .await;
    }
}

pub(super) async fn members_become_a_newer_version_and_go_back_one_by_one<K: Kind>() {
    let kind = K::new().await;
    let engine = kind.engine();
    let mut of = Deployed::open(&kind).await;
    let ada = user("ada", "first");
    of.add(&kind, &ada).await;
    kind.put(&of, &ada, "a").await.expect("a key");
    let [from, to]: [Version; 2] = K::VERSIONS.map(|of| of.parse().expect("a version"));
    assert_eq!(engine.obstacles(of.site(), to).await.expect("a look"), []);
    of.agree_on(&kind, from).await;
    of.checkpoint(&kind).await;
    of.become_version(&kind, to).await;
    of.agree_on(&kind, to).await;
    assert_eq!(kind.dump(&of, &ada).await.len(), 1);
    kind.put(&of, &ada, "b").await.expect("a key");

    let entry = engine.profile().entry(from, to).expect("a way");
    assert!(entry.has_way_back, "and it is gone here");
    for _ in 0..2 {
        let begun = engine.pass(of.site(), Passage::BeginWayBack(from)).await;
        begun.expect("begun");
    }
    of.become_version(&kind, from).await;
    // The second time, none is under way.
    for _ in 0..2 {
        let ended = engine.pass(of.site(), Passage::EndWayBack).await;
        ended.expect("ended");
    }
    of.agree_on(&kind, from).await;
    assert_eq!(kind.dump(&of, &ada).await.len(), 2);
}
