//! How much of the backups the mirror has, for a broker's operator.

use hyper::Method;

use super::{
    Session,
    error::Result,
    operations::{text, there},
};

impl Session {
    /// `mirror`
    pub async fn mirror(&self) -> Result<()> {
        let told = self.osb.operator(Method::GET, &["mirror"], &[], None, 200);
        let told = told.await?;
        let count = |field: &str| Some(told[field].to_string());
        let at = |field: &str| there(&told, field).map(|_| self.time(&told[field]));
        let mut shown = self.show.fields([
            ("since", at("since")),
            ("copied", count("copied")),
            ("waiting", count("waiting")),
            ("first of those", at("oldest_waiting_at")),
            ("late", count("late")),
            ("last failure", there(&told, "failure")),
            ("of", at("failed_at")),
        ]);
        let late = told["late_backups"].as_array().cloned().unwrap_or_default();
        if !late.is_empty() {
            let rows = late.iter().map(|of| {
                let [backup, instance] = ["backup_id", "instance_id"].map(|field| text(of, field));
                let complete = self.time(&of["complete_at"]);
                [
                    backup,
                    instance,
                    complete,
                    there(of, "failure").unwrap_or_default(),
                ]
            });
            shown.push_str("\n\n");
            let head = ["LATE BACKUP", "INSTANCE", "COMPLETE", "FAILURE"];
            shown.push_str(&self.show.table(head, rows));
        }
        self.show.result(&shown, &told)
    }
}
