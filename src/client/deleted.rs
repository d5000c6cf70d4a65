//! Deleted instances whose backups are there still, for a broker's operator.

use clap::Subcommand;
use hyper::Method;
use serde_json::{Value, json};

use super::{
    Session,
    confirm::certain,
    error::{Error, Result},
    operations::{text, there},
    osb::given,
};

/// What an operator can ask for.
#[derive(Debug, Subcommand)]
pub enum Deleted {
    /// List deleted service instances whose backups are kept, the one that was deleted last first
    List {
        /// The page; the end of a longer list names the next one
        #[arg(long, value_name = "NUMBER")]
        page: Option<u16>,
    },
    /// Remove the backups of a deleted service instance before their time
    Purge {
        /// The deployment that was behind it, as the list shows it
        deployment: String,
        /// Do not ask for confirmation
        #[arg(short, long)]
        force: bool,
    },
}

/// The command that makes a new instance of the newest backup of a deleted one.
pub(super) fn brought_back(instance: &str, offering: &str, plan: &str) -> String {
    let parameters = json!({ "source_service_instance_id": instance, "backup_id": "latest" });
    format!("compose-broker create-service {offering} {plan} NEW_NAME -c '{parameters}'")
}

impl Session {
    /// What the broker tells its operators of a deleted instance of that id or name, the one that was deleted last
    /// where there are several; none where it tells of none.
    pub(super) async fn find_deleted(&self, name: &str) -> Result<Option<Value>> {
        let mut page = 1_u64;
        loop {
            let number = page.to_string();
            let query = [("page", number.as_str())];
            let told = self.ask_as_operator(&["deleted_instances"], &query).await?;
            let Some(mut told) = told else {
                return Ok(None);
            };
            let listed = told["deleted_instances"].take();
            let mut listed = listed.as_array().cloned().unwrap_or_default().into_iter();
            if let Some(found) = listed.find(|of| of["instance_id"] == name || of["name"] == name) {
                return Ok(Some(found));
            }
            match told["next_page"].as_u64() {
                Some(next) if next > page => page = next,
                _ => return Ok(None),
            }
        }
    }

    /// `deleted`
    pub async fn deleted(&self, command: Deleted) -> Result<()> {
        match command {
            Deleted::List { page } => self.list_deleted(page).await,
            Deleted::Purge { deployment, force } => {
                let what = format!("the backups of the deleted service instance {deployment}");
                certain(force, &what)?;
                let path = ["deleted_instances", deployment.as_str()];
                let gone = self.osb.operator(Method::DELETE, &path, &[], None, 202);
                let told = gone.await?;
                self.show.note("they go within some seconds");
                self.show.result("", &told)
            }
        }
    }

    async fn list_deleted(&self, page: Option<u16>) -> Result<()> {
        let page = page.map(|page| page.to_string());
        let query = given([("page", page.as_deref())]);
        let path = ["deleted_instances"];
        let told = self.osb.operator(Method::GET, &path, &query, None, 200);
        let told = told.await?;
        let Some(listed) = told["deleted_instances"].as_array() else {
            let text = "the broker's answer lists no deleted service instances";
            return Err(Error::Failed(text.into()));
        };
        let rows = listed.iter().map(|deleted| {
            let [instance, deployment, version] =
                ["instance_id", "deployment_id", "version"].map(|field| text(deleted, field));
            let name = there(deleted, "name").unwrap_or_default();
            let [gone, until, newest] = ["deleted_at", "kept_until", "newest_backup_at"]
                .map(|field| self.time(&deleted[field]));
            let backups = deleted["backups"].to_string();
            let last = there(deleted, "final_backup_failure").unwrap_or_default();
            [
                name, instance, deployment, version, gone, backups, newest, until, last,
            ]
        });
        let head = [
            "NAME",
            "INSTANCE",
            "DEPLOYMENT",
            "VERSION",
            "DELETED",
            "BACKUPS",
            "NEWEST",
            "KEPT UNTIL",
            "LAST BACKUP",
        ];
        let none = "No deleted service instance has backups here.";
        let shown = self.show.listed(head, rows, none);
        self.show.result(&shown, &told)?;
        if let Some(next) = told["next_page"].as_u64() {
            self.show
                .note(&format!("there are more: add --page {next}"));
        }
        Ok(())
    }
}
