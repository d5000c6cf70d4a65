//! Every limit of the broker, with its unit in its name.

use std::time::Duration;

pub mod deleted;
pub mod discovery;
pub mod kubernetes;
pub mod mirror;
pub mod patience;
pub mod postgres;
pub mod prefix;
pub mod proof;
pub mod register;
pub mod tenant_key;
pub mod upload;

/// Longest id that a platform may choose, in bytes. CF uses 36.
pub const PLATFORM_ID_BYTES_MAX: usize = 255;
/// Longest name that is taken from a platform for an instance, an organization or a space, in bytes.
pub const PLATFORM_NAME_BYTES_MAX: usize = 255;
/// Longest name of an instance that the broker makes by itself, in characters. CF had 50 for long.
pub const INSTANCE_NAME_CHARS_MAX: usize = 50;
/// Largest request body, in bytes.
pub const BODY_BYTES_MAX: usize = 256 * 1024;
/// Longest credential header that is looked at, in bytes.
pub const AUTHORIZATION_BYTES_MAX: usize = 8 * 1024;
/// Requests that a client may send at once after a pause, as seconds of its rate.
pub const BURST_SECONDS: u32 = 10;
/// Highest rate of requests that may be set, for each client and second.
pub const REQUESTS_PER_SECOND_MAX: u32 = 1_000_000;
/// After so many requests, clients that have not come for a while are forgotten.
pub const CLIENTS_TIDIED_EVERY: u32 = 4096;
/// Connections that are held at once, where the system lets the broker have files enough.
pub const CONNECTIONS_MAX: usize = 8192;
/// Connections that one client may hold at least, however few there are.
pub const CONNECTIONS_OF_CLIENT_MIN: usize = 16;
/// With fewer open files than this, the start warns.
pub const OPEN_FILES_ENOUGH: u64 = 1024;
/// A client has this long for the greetings of TLS.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection that is closed has this long to take what was sent last.
pub const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A client has this long to send its request head.
pub const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A client has this long to send its whole body.
pub const REQUEST_BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a bind or unbind without `accepts_incomplete` waits for its operation. CF gives up
/// after 60 s.
pub const SYNC_WAIT: Duration = Duration::from_secs(40);
/// Seconds that a platform is asked to wait between two polls.
pub const RETRY_AFTER_SECONDS: u32 = 2;

/// Storage quota of one unit on each member, in bytes.
pub const UNIT_BYTES: u64 = 256 * 1024 * 1024;
/// Units of an instance that asks for none.
pub const UNITS_DEFAULT: u32 = 1;
/// Most units of one instance of any engine: 8 GiB. What a volume can be promised is reckoned with it.
pub const UNITS_MAX: u32 = 32;

/// Shortest life that a binding may be given, in seconds: time enough to make and deliver it.
pub const BINDING_LIFE_SECONDS_MIN: u32 = 60;
/// Longest life that a binding may be given, in seconds: 366 days.
pub const BINDING_LIFE_SECONDS_MAX: u32 = 366 * 24 * 3600;
/// Bindings that are ended at one look.
pub const EXPIRIES_AT_ONCE: i64 = 100;
/// Pause before the end of a binding is tried again that could not be brought about.
pub const EXPIRY_RETRY: Duration = Duration::from_secs(10);
/// A binding whose end waits for another's of its instance is looked at again after this long, should
/// that one's end not have brought its turn.
pub const EXPIRY_TURN_MAX: Duration = Duration::from_secs(10 * 60);

/// How long a download link is good for.
pub const DOWNLOAD_LINK_TTL: Duration = Duration::from_secs(15 * 60);

/// Operations that start databases or move their bytes, and that one broker process runs at once.
pub const HEAVY_OPERATIONS_AT_ONCE: usize = 8;
/// Operations of a few calls that one broker process runs at once.
pub const LIGHT_OPERATIONS_AT_ONCE: usize = 16;
/// Light operations that one tenant may have running at once.
pub const LIGHT_OPERATIONS_OF_TENANT: usize = LIGHT_OPERATIONS_AT_ONCE / 2;
/// Light operations of one instance that run at once: its members may not answer.
pub const LIGHT_OPERATIONS_OF_INSTANCE: usize = 2;
/// Places of each weight that are kept for what nobody asked for, as for scheduled backups.
pub const PLACES_KEPT: usize = 1;
/// What nobody asked for is late when it has been due for this long, and comes first then.
pub const UNASKED_LATE_AFTER: Duration = Duration::from_secs(60);
/// Looks at members that are silent in a row, before they are left alone for a while.
pub const SILENT_LOOKS_MAX: u32 = 3;
/// For how long silent members are left alone at first; doubled for each further silent look.
pub const SILENT_REST_FIRST: Duration = Duration::from_secs(10);
/// For how long silent members are left alone at most.
pub const SILENT_REST_MAX: Duration = Duration::from_secs(3600);
/// A worker that was not heard of for this long is taken for dead.
pub const LEASE: Duration = Duration::from_secs(15);

/// A broker that has not said for so long that it is alive is gone, for the others on its store.
pub const REPLICA_ALIVE: Duration = Duration::from_secs(15);
/// How often brokers on one store say that they are alive and look who looks after which cluster. What has
/// lost its broker waits so long at most, beside its [`LEASE`].
pub const REPLICA_INTERVAL: Duration = Duration::from_secs(2);
/// How often a broker looks for manifests of backups that are not sealed under the first key of its ring.
pub const RESEAL_INTERVAL: Duration = Duration::from_secs(60);
/// How often it looks while other brokers on its store seal under another key, or a look came to nothing.
pub const RESEAL_RETRY: Duration = Duration::from_secs(5);
/// How long a broker is remembered that is gone.
pub const REPLICA_KEPT: Duration = Duration::from_hours(24);
/// How often a worker renews its lease and looks whether it was told to halt.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(1);
/// How often the runner looks for work that it was not told of.
pub const CLAIM_INTERVAL: Duration = Duration::from_secs(1);
/// A lease that ends further ahead than this was written under a clock that was set back since, and
/// counts no more.
pub const LEASE_AHEAD_MAX: Duration = Duration::from_secs(60);
/// A pause up to this keeps the operation's place; in a longer one others have it.
pub const PAUSE_IN_PLACE_MAX: Duration = Duration::from_secs(2);
/// A pause that ends further ahead than this was written under a clock that was set back since, and
/// counts no more.
pub const PAUSE_AHEAD_MAX: Duration = Duration::from_secs(16 * 60);
/// What is kept of why a try failed, in characters.
pub const ERROR_CHARS_MAX: usize = 2000;
/// Shortest pause between two progress writes of one operation.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// How long a new or restored deployment has until all members serve. A large index is rebuilt
/// within this time (measured: 38 s for 1.3 GiB on a busy machine).
pub const READY_TIMEOUT: Duration = Duration::from_secs(180);
/// What a starting member reads of its data in a second at least, in bytes: members with much of it
/// have so much longer until they serve.
pub const START_BYTES_PER_SECOND: u64 = 8 * 1024 * 1024;
/// How long the members that an update is about to change have to serve all at once. Nobody has
/// touched them yet, so they are not starting.
pub const CHANGE_WAIT: Duration = Duration::from_secs(30);
/// How long the start of the next member waits for the one before to listen.
pub const LISTEN_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the members of an upgraded deployment have to agree on their new version. etcd looks
/// at it every four seconds.
pub const AGREEMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the members have to write their whole state down before an upgrade that asks for it.
pub const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause between two looks at what the members agreed on.
pub const AGREEMENT_POLL: Duration = Duration::from_millis(200);
/// Pause between two looks at a starting member.
pub const READY_POLL: Duration = Duration::from_millis(20);
/// One call to an engine.
pub const ENGINE_CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Opening a connection to an engine.
pub const ENGINE_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One member's giving back of unused storage: it copies its whole database.
pub const DEFRAGMENT_TIMEOUT: Duration = Duration::from_secs(600);
/// Pause before an engine is asked again after a passing failure; doubled for each further one.
pub const ENGINE_RETRY_FIRST: Duration = Duration::from_millis(20);
/// Longest pause between two tries of one call to an engine.
pub const ENGINE_RETRY_MAX: Duration = Duration::from_millis(500);
/// One look at a starting member. Long enough that a busy machine answers, short enough that an
/// answer which got lost while the member started costs little.
pub const READY_LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// One look at the state of a running member.
pub const OBSERVATION_TIMEOUT: Duration = Duration::from_secs(3);
/// A member that answers a look and lets nobody in for so long has no majority behind it. Less than
/// [`OBSERVATION_TIMEOUT`]: then it would not be told from one that does not answer.
pub const OBSERVATION_LOGIN_TIMEOUT: Duration = Duration::from_secs(2);
/// What was seen of a deployment within this time is told without looking again.
pub const OBSERVATION_FRESH: Duration = Duration::from_secs(2);
/// What was seen longer ago than this is not told any more of members.
pub const OBSERVATION_USABLE: Duration = Duration::from_secs(15);
/// What was seen longer ago than this tells nothing of the health of a deployment. The watchdog looks
/// more often than that.
pub const OBSERVATION_KEPT: Duration = Duration::from_secs(90);
/// Deployments that are looked at at once.
pub const LOOKS_AT_ONCE: usize = 8;
/// Longest text that is taken for a version, in bytes.
pub const VERSION_BYTES_MAX: usize = 32;
/// Deployments that are asked at once what is in the way of an upgrade.
pub const PREFLIGHTS_AT_ONCE: usize = 2;
/// A question for what is in the way of an upgrade waits no longer than this.
pub const PREFLIGHT_TIMEOUT: Duration = Duration::from_secs(15);
/// Deployments whose last observation is remembered at once.
pub const OBSERVATIONS_REMEMBERED_MAX: usize = 10_000;
/// How often a snapshot is begun anew because somebody wrote at that very moment, before one is
/// taken whose content is not known at once.
pub const SNAPSHOT_BEGINS_MAX: u32 = 3;
/// How long the authority of a deployment is good for.
pub const AUTHORITY_LIFE: chrono::Duration = chrono::Duration::days(3653);
/// So long before its end, the one after it is trusted too, and told with credentials.
pub const AUTHORITY_FOLLOWED_BEFORE: chrono::Duration = chrono::Duration::days(731);
/// So long before its end, the one after it issues certificates.
pub const AUTHORITY_CHANGES_BEFORE: chrono::Duration = chrono::Duration::days(366);
/// Where it was not trusted for long by then, it may take until so long before that end.
pub const AUTHORITY_CHANGES_AT_LATEST: chrono::Duration = chrono::Duration::days(91);
/// How long the certificate is good for that members show.
pub const CERTIFICATE_LIFE: chrono::Duration = chrono::Duration::days(731);
/// So long before its end, it is renewed.
pub const CERTIFICATE_RENEWED_BEFORE: chrono::Duration = chrono::Duration::days(183);
/// From so long before its end on, users and operators are told that a certificate is not renewed; and
/// that another authority issues from then on.
pub const CERTIFICATE_END_TOLD: chrono::Duration = chrono::Duration::days(60);
/// A renewal of certificates that failed is tried again after this time.
pub const RENEWAL_RETRY: chrono::Duration = chrono::Duration::days(1);
/// One that waits for other work on its members is begun after this time.
pub const RENEWAL_BUSY: chrono::Duration = chrono::Duration::minutes(10);
/// Renewals of all deployments that are begun before others have ended: thousands may be due at once.
pub const RENEWALS_AT_ONCE: i64 = 4;
/// Deployments, or bindings, that are read at once where all of them are looked at.
pub const PAGE_OF_ALL: i64 = 1000;
/// How often is looked for members that applications should reach elsewhere: at [`PAGE_OF_ALL`]
/// deployments each time.
pub const ADDRESSES_LOOK: Duration = Duration::from_secs(5);
/// A move of members to other addresses that failed is tried again after this time.
pub const READDRESS_RETRY: chrono::Duration = chrono::Duration::hours(1);
/// One that was to take a version that lets strangers in away from them is tried again after this time.
pub const WITHDRAWAL_RETRY: chrono::Duration = chrono::Duration::minutes(1);
/// Moves of all deployments that are begun before others have ended: a change of the configuration moves
/// all.
pub const READDRESSES_AT_ONCE: i64 = 4;
/// Deployments of earlier versions whose certificates are looked at in one go.
pub const CERTIFICATES_LOOKED_AT: i64 = 20;
/// How far a certificate's life begins in the past, for clocks that are behind.
pub const CERTIFICATE_BACKDATE: chrono::Duration = chrono::Duration::days(1);
/// A member's hash over all that it holds: it reads the whole database for it, at hundreds of MiB a second at
/// the least.
pub const HASH_TIMEOUT: Duration = Duration::from_secs(60);
/// How old the newest proved backup of an instance may be, in hours, where its plan does not tell: a day, as long as
/// backups lie apart, and two hours for the next one and its proof. A plan may tell 25 to 8760.
pub const PROVED_WITHIN_HOURS_DEFAULT: u32 = 26;
/// Backups that are restored at once on a cluster to be proved.
pub const PROOFS_AT_ONCE: usize = 1;
/// A proof waits for as long as other work on databases does, but no longer than this.
pub const PROOF_WAIT_MAX: chrono::Duration = chrono::Duration::hours(1);
/// Between two looks for backups that are to be proved, where nothing else happens.
pub const PROOFS_LOOK: Duration = Duration::from_secs(5);
/// Between two looks for what proofs have left on clusters; the first is at the start.
pub const PROOFS_SWEEP: Duration = Duration::from_secs(3600);
/// Backups that are looked at for one whose turn it is to be proved.
pub const PROOFS_LOOKED_AT: i64 = 20;
/// The pause after a proof that did not succeed; doubled for each further one.
pub const PROOF_PAUSE_FIRST: Duration = Duration::from_secs(10 * 60);
/// The longest pause between two proofs of one backup.
pub const PROOF_PAUSE_MAX: Duration = Duration::from_secs(24 * 3600);
/// A snapshot stream that is silent for this long is broken.
pub const SNAPSHOT_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The engine's restore command on one member.
pub const RESTORE_TASK_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// The engine's inspection of one snapshot.
pub const INSPECT_TASK_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// How long a member that takes the place of another has to catch up with the others, beside the
/// time for its bytes ([`START_BYTES_PER_SECOND`]).
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(180);
/// How long a survivor of a lost majority has to write down what it knows, beside the time for its
/// bytes ([`START_BYTES_PER_SECOND`]): etcd does so ten times a second.
pub const SURVIVOR_SETTLES: Duration = Duration::from_secs(5);
/// How long a recovery's request waits for what its members have.
pub const SURVEY_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two looks at a member that catches up.
pub const JOIN_POLL: Duration = Duration::from_millis(200);
/// What a task may print before the rest is dropped, in bytes.
pub const TASK_OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// How much of the end of each of a failed task's two outputs goes into its error, in bytes.
pub const TASK_ERROR_BYTES_MAX: usize = 4 * 1024;

/// How often local members are looked at.
pub const SUPERVISION_INTERVAL: Duration = Duration::from_millis(250);
/// Pause before a crashed member is started again; doubled for each further crash.
pub const RESTART_BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// Longest pause before a crashed member is started again.
pub const RESTART_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A member that ran for this long is healthy again: its next crash starts the backoff anew.
pub const RESTART_BACKOFF_RESET: Duration = Duration::from_secs(60);
/// How often the watchdog looks at members' processes.
pub const WATCHDOG_INTERVAL: Duration = Duration::from_secs(2);
/// How often the watchdog asks each member for a sign of life.
pub const LIVENESS_INTERVAL: Duration = Duration::from_secs(5);
/// A sign of life must come within this time.
pub const LIVENESS_TIMEOUT: Duration = Duration::from_secs(3);
/// A member that gave no sign of life for so long, while the others serve, is ended and started
/// anew; beside that it has the time for its bytes ([`START_BYTES_PER_SECOND`]).
pub const HANG_AFTER: Duration = Duration::from_secs(60);
/// How many times as long it is waited where the others are too few.
pub const HANG_PATIENCES_WITHOUT_SERVICE: u32 = 3;
/// How often the watchdog asks members whether they hold what the others hold.
pub const DIFFERENCE_INTERVAL: Duration = Duration::from_secs(30);
/// A member whose last words tell of damaged data is replaced when it has ended so often in a row.
pub const DAMAGED_ENDS_MIN: u32 = 2;
/// What is looked at of a member's last words, in bytes.
pub const LAST_WORDS_BYTES_MAX: u64 = 256 * 1024;
/// Members of one database that the broker replaces by itself within [`REPAIRS_COUNTED`].
pub const REPAIRS_MAX: i64 = 3;
/// The time within which these count.
pub const REPAIRS_COUNTED: chrono::Duration = chrono::Duration::days(1);
/// A member that was asked to stop is killed after this long.
pub const STOP_GRACE: Duration = Duration::from_secs(10);
/// A member's log is turned over at this size, in bytes; one older file is kept.
pub const MEMBER_LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// What is kept of one line of a log that somebody reads, in bytes.
pub const LOG_LINE_BYTES_MAX: usize = 64 * 1024;
/// A killed process must be gone after this long.
pub const KILL_WAIT: Duration = Duration::from_secs(10);
/// The kernel hands a program that is being executed its environment within this time.
pub const EXEC_WAIT: Duration = Duration::from_millis(500);
/// Pause between two looks at a process that is starting or ending.
pub const PROCESS_POLL: Duration = Duration::from_millis(10);
/// A member that is started waits this long for its ports, which a process that has just ended may
/// have for a moment.
pub const PORT_WAIT: Duration = Duration::from_secs(1);
/// How long a starting broker waits for an ending one to let go of its database file or a cluster's
/// folder.
pub const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Pause between two tries to lock these.
pub const LOCK_POLL: Duration = Duration::from_millis(10);
/// Open files of one member.
pub const MEMBER_OPEN_FILES_MAX: u64 = 16 * 1024;

/// Chunks of backup bytes in memory are of this size.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// Bytes that are sealed as one: what is read is let on in pieces of this size, each once it was found to be
/// what was sealed. Part of the form of stored objects.
pub const SEALED_FRAME_BYTES: usize = 64 * 1024;
/// Memory that a stored object may claim for unpacking it, as a power of two in bytes: 8 MiB, what
/// the zstd format (RFC 8878) asks every reader to support. Ours claim 512 KiB.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Disk that must stay free on the volume of backups and restores, in bytes.
pub const DISK_RESERVE_BYTES: u64 = 64 * 1024 * 1024;
/// A volume with less than this part of it free, in percent, is low.
pub const VOLUME_LOW_PERCENT: u64 = 10;
/// A volume with this much free is not low, however large it is, in bytes: 4 GiB.
pub const VOLUME_LOW_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// A volume has recovered when this part of what it was short of, in percent, is free.
pub const VOLUME_RECOVERY_PERCENT: u64 = 110;
/// How often it is measured what members have of their volumes.
pub const MEMBERS_MEASURED_EVERY: Duration = Duration::from_secs(30);
/// How often volumes are looked at.
pub const VOLUMES_LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// What the store's file has in reserve, and its log as well, in bytes: for some thousand operations
/// while the disk is full.
pub const STORE_RESERVE_BYTES: u64 = 8 * 1024 * 1024;

/// So far the clock may be from what it should show, and is believed still: more than time servers
/// move it by, less than anything that is kept lives.
pub const CLOCK_MARGIN: chrono::Duration = chrono::Duration::minutes(5);
/// Of the time that has passed, one part in so many may be a correction of the clock.
pub const CLOCK_SLEW: i32 = 500;
/// A machine that is started again may have been off so long without anybody doubting its clock.
pub const CLOCK_DOWNTIME_MAX: chrono::Duration = chrono::Duration::days(2);
/// A clock in doubt is believed after it went on evenly for so long.
pub const CLOCK_GRACE: chrono::Duration = chrono::Duration::hours(24);
/// How often the clock is looked at.
pub const CLOCK_LOOK: Duration = Duration::from_secs(1);
/// How often what is known of the time is written down.
pub const CLOCK_KEPT_EVERY: Duration = Duration::from_secs(5 * 60);

/// How long finished operations are kept, to be asked for. Of an instance that is there the newest of
/// each kind stays; those of backups go with their rows, see [`BACKUP_HISTORY_KEPT`].
pub const HISTORY_KEPT: chrono::Duration = chrono::Duration::days(30);
/// Finished operations that are forgotten at one look.
pub const HISTORY_FORGOTTEN_AT_ONCE: i64 = 500;

/// Instances whose owners are looked at in one transaction.
pub const OWNERS_PAGE: i64 = 500;
/// How old something must be that a put left which broke off, before a repair removes it. A put
/// that is under way writes all the time.
pub const UNFINISHED_PUT_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Rows of backups that are compared with their objects at once.
pub const RECONCILE_PAGE: i64 = 1000;

/// Threads that serve HTTP read a few rows themselves, unless the last such read took longer than this.
pub const STORE_READ_SLOW: Duration = Duration::from_millis(50);
/// A read of a few rows that the database has not answered within this time is given up.
pub const STORE_READ_WAIT: Duration = Duration::from_secs(10);
/// The same of one that may be much.
pub const STORE_SCAN_WAIT: Duration = Duration::from_secs(30);
/// Decisions that are made durable together, and for how long more of them join the first.
pub const DECISIONS_TOGETHER_MAX: usize = 128;
/// See [`DECISIONS_TOGETHER_MAX`].
pub const DECISIONS_TOGETHER_TIME: Duration = Duration::from_millis(5);
/// A decision that the writer of the store has not begun within this time is refused.
pub const DECISION_WAIT: Duration = Duration::from_secs(10);
/// A decision that a server's passing failure has undone is made anew after each of these, one after the
/// other, while no more than [`DECISION_TRIES_TIME`] is over.
pub const DECISION_PAUSES: [Duration; 4] = [
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
];
/// See [`DECISION_PAUSES`].
pub const DECISION_TRIES_TIME: Duration = Duration::from_secs(5);
/// For so long a server is asked what became of a commit whose answer was lost.
pub const LOST_COMMIT_WAIT: Duration = Duration::from_secs(20);
/// A decision that was begun is waited for as long as one statement may take, and the look for a lost commit;
/// then nobody knows what comes of it.
pub const DECISION_ANSWER_WAIT: Duration =
    Duration::from_secs(postgres::POSTGRES_STATEMENT_SECONDS as u64 + LOST_COMMIT_WAIT.as_secs());
/// Decisions that wait for the writer of the store; more are refused at once.
pub const DECISIONS_WAITING_MAX: usize = 16_384;
/// Threads that serve HTTP.
pub const HTTP_WORKERS: usize = 2;
/// A broker that is told to end serves on for at most so long, for a proxy to turn to another one, in seconds.
pub const DRAIN_SECONDS_MAX: u32 = 300;
/// A broker that is told to stop lets running requests end for this long.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// What was found when somebody last asked whether the broker is ready is told for so long.
pub const READINESS_FRESH: Duration = Duration::from_secs(1);
/// A broker that ends waits no longer for what works beside its server. What breaks off goes on at the next start.
pub const TASKS_END_WAIT: Duration = Duration::from_secs(20);
/// A broker that ends waits no longer for threads that wait for others, such as a server that hangs.
pub const THREADS_END_WAIT: Duration = Duration::from_secs(5);
/// A question whether the broker is ready waits no longer than this.
pub const READINESS_TIMEOUT: Duration = Duration::from_secs(3);

/// A listener that neither answers nor closes a connection for so long hangs.
pub const LISTENER_SILENCE_MAX: Duration = Duration::from_secs(10);
/// A listener that does not answer yet is asked again after this.
pub const LISTENER_LOOK: Duration = Duration::from_millis(100);
/// A store that says nothing for so long, not even that it refuses, hangs.
pub const STORE_SILENCE_MAX: Duration = Duration::from_secs(30);
/// A task beside the server that has not moved for so long hangs. All of them look for something every few
/// seconds.
pub const TASK_SILENCE_MAX: Duration = Duration::from_secs(120);
/// In the time within which the service manager wants to hear that the broker is well, it is asked so
/// often whether it is.
pub const BEATS_WITHIN: u32 = 3;
/// Instances that a round looks at before others may read the store.
pub const ROUND_PAGE: i64 = 50;
/// Between two pages of a round lies this many times what one took, but no more than the next says: what
/// members are waited for is no work.
pub const ROUND_PAGE_PAUSES: u32 = 2;
/// Longest pause between two pages of a round.
pub const ROUND_PAGE_PAUSE_MAX: Duration = Duration::from_millis(100);
/// Between two rounds over all instances lies this many times what one took, but neither less nor more
/// than the next two say.
pub const ROUND_PAUSES: u32 = 10;
/// Shortest pause between two rounds over all instances.
pub const ROUND_PAUSE_MIN: Duration = Duration::from_secs(5);
/// Longest pause between two rounds over all instances.
pub const ROUND_PAUSE_MAX: Duration = Duration::from_secs(60);
/// The stretch of time that one reading of a database stands for in its history.
pub const READING_STRETCH: chrono::Duration = chrono::Duration::minutes(15);
/// How long such readings are kept.
pub const READINGS_FINE_KEPT: chrono::Duration = chrono::Duration::hours(24);
/// The stretch of time that an older reading stands for.
pub const READING_STRETCH_COARSE: chrono::Duration = chrono::Duration::hours(3);
/// How long any reading is kept.
pub const READINGS_KEPT: chrono::Duration = chrono::Duration::days(30);
/// Times at which not all members served that a page lists one by one.
pub const OUTAGES_SHOWN: usize = 5;
/// The most readings of one database: what these come to, with stretches that are begun.
pub const READINGS_MAX: usize = 352;
/// A member that does not answer for so long is told of in the log.
pub const SILENCE_LOGGED_AFTER: Duration = Duration::from_secs(60);
/// An alert that began, changed or ended so long ago is told to the operator's webhook.
pub const ALERT_SETTLES_AFTER: Duration = Duration::from_secs(30);
/// Characters of an alert's text in a message to the webhook.
pub const MESSAGE_TEXT_CHARS_MAX: usize = 4000;
/// Characters of the name by which the store knows an alert that was told.
pub const MESSAGE_SUBJECT_CHARS_MAX: usize = 200;
/// Messages of one instance that wait for the webhook. What changes then is told when there is room again.
pub const MESSAGES_OF_INSTANCE_MAX: i64 = 20;
/// Messages of all instances that wait for the webhook.
pub const MESSAGES_MAX: i64 = 10_000;
/// Messages that are sent one after the other before what waits is looked at again.
pub const MESSAGES_AT_ONCE: i64 = 20;
/// A message that was not taken for so long is given up.
pub const MESSAGE_KEPT: Duration = Duration::from_secs(24 * 3600);
/// The webhook has so long to take a message: connection, answer and all.
pub const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer's head that are read; its body is not.
pub const WEBHOOK_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Pause before a message is sent again for the first time; it doubles each time.
pub const WEBHOOK_PAUSE_FIRST: Duration = Duration::from_secs(1);
/// Longest pause before a message is sent again.
pub const WEBHOOK_PAUSE_MAX: Duration = Duration::from_secs(300);
/// Longest time without a try while the webhook takes nothing: so much later at most it is noticed that it
/// does again.
pub const WEBHOOK_SILENCE_MAX: Duration = Duration::from_secs(60);
/// What waits for the webhook is looked for so often.
pub const OUTBOX_LOOK: Duration = Duration::from_secs(2);
/// Of several brokers on one store, the one that sends keeps that right for so long without a word.
pub const COURIER_LEASE: Duration = Duration::from_secs(60);
/// A secret of the webhook, in bytes: the fewest.
pub const WEBHOOK_SECRET_BYTES_MIN: usize = 24;
/// A secret of the webhook, in bytes: the most.
pub const WEBHOOK_SECRET_BYTES_MAX: usize = 64;
/// What a scrape was told is told to others for so long.
pub const SCRAPE_FRESH: Duration = Duration::from_secs(5);
/// A scrape waits no longer than this for the store.
pub const SCRAPE_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections to the address that metrics have for themselves.
pub const SCRAPE_CONNECTIONS_MAX: usize = 64;
/// Instances that metrics may tell of one by one.
pub const METRICS_INSTANCES_MAX: u32 = 10_000;
/// Shortest token that scrapes may show, in bytes.
pub const METRICS_TOKEN_BYTES_MIN: usize = 16;

/// How often places for a deployment's members are chosen anew because others reserved them first.
pub const PLACE_TRIES_MAX: u32 = 20;
/// A starting member that ended by itself this often will not come up.
pub const CRASHES_MAX: u32 = 4;
/// How often starting members are looked at.
pub const CRASH_WATCH: Duration = Duration::from_millis(500);
/// How often the end of a restore is looked for that still reads a backup.
pub const RESTORE_WATCH: Duration = Duration::from_secs(1);
/// Downloads that are sent at once.
pub const DOWNLOADS_AT_ONCE: usize = 8;
/// Downloads of what all instances of one tenant have that are sent at once.
pub const DOWNLOADS_OF_TENANT: usize = DOWNLOADS_AT_ONCE / 2;
/// Downloads of what one instance has that are sent at once, and to one address.
pub const DOWNLOADS_OF_ONE: usize = 2;
/// What a client takes of its download in a second at least, in bytes.
pub const DOWNLOAD_BYTES_PER_SECOND_MIN: u64 = 16 * 1024;
/// Chunks of a download that wait for their client.
pub const DOWNLOAD_CHUNKS_AHEAD: usize = 4;
/// Backups whose downloads' lengths are remembered.
pub const DOWNLOAD_LENGTHS_REMEMBERED_MAX: usize = 1000;
/// A client that takes nothing of its download for this long has gone; so has one that takes so much
/// longer than it should ([`DOWNLOAD_BYTES_PER_SECOND_MIN`]), over the whole of it.
pub const DOWNLOAD_STALL_MAX: Duration = Duration::from_secs(60);
/// Instances that are named when a catalog would take their plan away.
pub const LOST_INSTANCES_NAMED_MAX: i64 = 20;
/// Entries of the audit that are listed at once.
pub const AUDIT_PAGE_MAX: i64 = 200;
/// Accesses that are alike are told of as one for so long after the first.
pub const ACCESSES_FOLDED_FOR: chrono::Duration = chrono::Duration::hours(1);
/// Accesses of one sort that are told apart in the audit within that time.
pub const ACCESSES_TOLD_APART_MAX: usize = 4096;
/// Addresses whose refusals are told apart in the audit within that time.
pub const REFUSALS_TOLD_APART_MAX: usize = 100;
/// Longest time that an audit may be kept for, other than for ever, in days.
pub const AUDIT_DAYS_MAX: u32 = 36_500;
/// Entries of the audit that are forgotten at one look.
pub const AUDIT_FORGOTTEN_AT_ONCE: i64 = 500;
/// Longest form of deployments' names, in bytes.
pub const DEPLOYMENT_NAMES_BYTES_MAX: usize = 100;
/// Operations that are listed at once for operators.
pub const OPERATIONS_PAGE_MAX: i64 = 200;
/// What is kept of a name that a platform tells of a user or a request, in characters.
pub const CALLER_NAME_CHARS_MAX: usize = 255;
/// What the log keeps of the reason why a request was refused, in characters.
pub const REFUSAL_CHARS_MAX: usize = 500;
/// Longest notes beside a deployment, in bytes.
pub const NOTES_BYTES_MAX: usize = 4096;
/// Longest note beside a backup, in bytes.
pub const BACKUP_NOTE_BYTES_MAX: usize = 255;
/// Backups of one instance that users may keep beyond their time, where the plan does not say.
pub const PINNED_BACKUPS_DEFAULT: u32 = 3;
/// Longest billing code beside a deployment, in bytes.
pub const BILLING_CODE_BYTES_MAX: usize = 255;
/// Deployments that are listed at once.
pub const DEPLOYMENTS_MAX: usize = 200;
/// Recipes that are listed at once.
pub const RECIPES_MAX: i64 = 200;
/// Failed backups of an instance that are listed, the newest ones.
pub const FAILED_BACKUPS_LISTED_MAX: i64 = 50;
/// Rows of backups of long ago that one run of the retention forgets.
pub const BACKUPS_FORGOTTEN_AT_ONCE: i64 = 1000;
/// How much likelier than the broker a member is ended when memory runs out (Linux `oom_score_adj`).
pub const MEMBER_OOM_SCORE: u32 = 500;

/// How often the scheduler looks for instances whose backup is due.
pub const SCHEDULE_INTERVAL: Duration = Duration::from_secs(1);
/// The first scheduled backup of a new instance comes no earlier than this after it is ready.
pub const SCHEDULE_BEGINS_AFTER: Duration = Duration::from_secs(3600);
/// A moment of the schedule that lies further ahead than this was written under a clock that was
/// set back since, and counts no more. Below it the clock is waited for: it comes by there again.
pub const SCHEDULE_AHEAD_MAX: Duration = Duration::from_secs(2 * 24 * 3600);
/// A scheduled backup waits this long for another backup of its instance before it looks again.
pub const SCHEDULE_WAITS: Duration = Duration::from_secs(60);
/// Pause before a failed scheduled backup is tried again; doubled for each further one.
pub const SCHEDULE_RETRY_FIRST: Duration = Duration::from_secs(60);
/// Longest pause before a failed scheduled backup is tried again.
pub const SCHEDULE_RETRY_MAX: Duration = Duration::from_secs(4 * 3600);
/// Due instances of one cluster that the scheduler looks at in one tick; more are left for the next.
pub const SCHEDULES_LOOKED_AT: i64 = 1000;
/// Backups that the schedule lets run at once in all: half of the places for such work, so that
/// users' own find some free.
pub const SNAPSHOTS_AT_ONCE: usize = 4;
/// Backups that the schedule lets run at once on one cluster that says no other number.
pub const SNAPSHOTS_AT_ONCE_PER_CLUSTER: usize = 2;

/// A scheduled backup is late when it is not complete this long after its slot.
pub const BACKUP_LATE_AFTER: Duration = Duration::from_secs(2 * 3600);
/// Tries of a scheduled backup that fail in a row before users are told, late or not.
pub const BACKUP_FAILURES_TELLING: u32 = 3;
/// From this part of its storage quota on, in percent, a database's users are told that it fills.
pub const QUOTA_NEAR_PERCENT: u64 = 80;
/// From this part of its storage quota on, in percent, a database is about to be full.
pub const QUOTA_CRITICAL_PERCENT: u64 = 95;
/// From this part of its storage quota on, in percent, the broker tries to make room.
pub const QUOTA_RELIEF_PERCENT: u64 = 90;
/// A database that was closed because it was full is opened below this part of its quota, in
/// percent: not so near to it that it is closed again at once.
pub const QUOTA_OPENED_PERCENT: u64 = 90;
/// Storage is given back when so much of a database's file, in percent, holds nothing: a member
/// serves nobody meanwhile.
pub const UNUSED_PERCENT_MIN: u64 = 10;
/// At night, storage is given back of a database's file of which more than this part, in percent,
/// holds nothing.
pub const FRAGMENTED_PERCENT: u64 = 50;
/// The same only of a file with at least this many bytes: 64 MiB.
pub const FRAGMENTED_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// The hour (UTC) in which the night begins for that.
pub const NIGHT_BEGINS_HOUR: i64 = 1;
/// How many hours it has.
pub const NIGHT_HOURS: i64 = 4;
/// Pause before a database is looked at again whose turn it is and that could not have it.
pub const NIGHT_LOOK_PAUSE: Duration = Duration::from_secs(60);
/// What a member writes anew in a second on a slow or busy disk, in bytes: for the estimate that
/// users are told.
pub const DEFRAGMENT_BYTES_PER_SECOND: u64 = 32 * 1024 * 1024;
/// How often the sizes of databases are looked at.
pub const GUARD_INTERVAL: Duration = Duration::from_secs(1);
/// A database's file grows ahead of what is in it, by no more than this, in bytes. One that is this
/// far from a limit is within it.
pub const FILE_AHEAD_BYTES: u64 = 16 * 1024 * 1024;
/// Pause before members are asked again how full they are, whose version is safe full.
pub const FULL_LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// The same where the version is not safe full: within it, somebody who writes as fast as members
/// take it must not get through what is left between the quota and the members' own limit.
pub const UNSAFE_LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How long members that were not asked to forget the history are waited for, until there is
/// something to give back: etcd forgets some ten thousand keys each second behind its answer.
pub const FORGETTING_SPREADS: Duration = Duration::from_secs(20);
/// Pause between two looks meanwhile.
pub const FORGETTING_LOOK: Duration = Duration::from_millis(500);
/// Least pause between two reliefs of one database.
pub const RELIEF_PAUSE: Duration = Duration::from_secs(5);
/// Pause before room is looked for again in a database that is full, when its content is the same.
pub const RELIEF_PAUSE_UNCHANGED: Duration = Duration::from_secs(3600);
/// The same where that failed, as when members did not answer, or where there is something to give
/// back by now.
pub const RELIEF_PAUSE_FAILED: Duration = Duration::from_secs(60);
/// Pause before unused storage is given back again of a database that is nearly full.
pub const RELIEF_PAUSE_NEAR: Duration = Duration::from_secs(600);
/// Strangers' names that are told of one incident: they choose how many there are.
pub const STRANGERS_TOLD_MAX: usize = 5;
/// What is told of a stranger's name, in characters.
pub const STRANGER_NAME_CHARS_MAX: usize = 64;
/// Known faults of a version that an alert tells in full, the gravest.
pub const FAULTS_TOLD_MAX: usize = 3;
/// How long users are told of what befell their database.
pub const INCIDENT_TOLD: chrono::Duration = chrono::Duration::days(7);
/// Incidents of one database that are kept, the newest ones.
pub const INCIDENTS_TOLD_MAX: i64 = 10;
/// How long a request for alerts waits for a look at the members.
pub const ALERT_LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// On-demand backups of an instance that may follow each other at once; more of them come one for each
/// pause that passes.
pub const ON_DEMAND_IN_A_ROW: u32 = 5;
/// Longest pause between on-demand backups of an instance that may be set, in seconds: a day.
pub const ON_DEMAND_PAUSE_SECONDS_MAX: u32 = 24 * 3600;

/// How long a daily backup is kept.
pub const DAILY_KEPT: chrono::Duration = chrono::Duration::days(7);
/// How long a weekly backup is kept.
pub const WEEKLY_KEPT: chrono::Duration = chrono::Duration::days(28);
/// Of so many restores with an engine the broker recalls how long they took, to tell how long the next
/// one takes.
pub const RESTORES_RECALLED: i64 = 20;
/// How long a monthly backup is kept, in calendar months.
pub const MONTHLY_KEPT: chrono::Months = chrono::Months::new(3);
/// How long a backup of before an upgrade is kept.
pub const SAFETY_KEPT: chrono::Duration = chrono::Duration::days(7);
/// Backups of before upgrades that an instance has at most, the newest ones.
pub const SAFETY_BACKUPS_MAX: usize = 3;
/// Backups of an instance that are marked at a time to go by their age: as many as a day adds kinds of.
pub const REMOVED_BY_AGE_AT_ONCE: usize = 3;
/// The longest time between mark and end of a backup, in hours: a year.
pub const BACKUP_GRACE_HOURS_MAX: u32 = 8_760;
/// Backups that are found in one look for such ends.
pub const REMOVALS_AT_ONCE: i64 = 300;
/// How long rows of failed backups, and of removed ones, are kept, with their operations and prunes.
pub const BACKUP_HISTORY_KEPT: chrono::Duration = chrono::Duration::days(30);

/// How long a session of the dashboard lasts, whatever is done in it.
pub const SESSION_TTL: Duration = Duration::from_secs(2 * 60 * 60);
/// How long a one-time link to the dashboard is good for.
pub const DASHBOARD_LINK_TTL: Duration = Duration::from_secs(15 * 60);
/// Longest form that the dashboard reads, in bytes.
pub const FORM_BYTES_MAX: usize = 16 * 1024;
/// Wrong credentials that an address may show the dashboard in a row before it has to wait, by default;
/// of IPv6 a network of 64 bits.
pub const SIGN_IN_FAILURES_OF_CLIENT: u32 = 10;
/// So many that are shown to an API count like one that is shown to the dashboard: people type, and
/// programs ask again until they are told the new password.
pub const SIGN_IN_FAILURES_OF_PROGRAMS: u32 = 20;
/// Highest number of them that may be set.
pub const FAILED_SIGN_INS_MAX: u32 = 1_000_000;
/// An address that had to wait may fail once more after this long.
pub const SIGN_IN_REST_OF_CLIENT: Duration = Duration::from_secs(30);
/// Wrong credentials that all addresses together may show in a row, before those have to wait that
/// did.
pub const SIGN_IN_FAILURES_OF_ALL: u32 = 100;
/// After this long all addresses together may fail once more.
pub const SIGN_IN_REST_OF_ALL: Duration = Duration::from_secs(1);
/// Addresses whose failures are remembered.
pub const SIGN_IN_CLIENTS_MAX: usize = 4096;
/// On-demand backups that the dashboard shows at first.
pub const ON_DEMAND_SHOWN: usize = 8;
/// Backups of before upgrades that the dashboard shows at first: one more is on its way.
pub const SAFETY_SHOWN: usize = 4;
/// Daily backups that the dashboard shows at first.
pub const DAILY_SHOWN: usize = 8;
/// Weekly backups that the dashboard shows at first.
pub const WEEKLY_SHOWN: usize = 5;
/// Monthly backups that the dashboard shows at first.
pub const MONTHLY_SHOWN: usize = 4;
/// Backups on one page of a kind.
pub const BACKUPS_ON_A_PAGE: usize = 20;
/// Backups in the dashboard's plot, the newest ones.
pub const BACKUPS_PLOTTED: usize = 60;
/// Operations of one instance that are stuck and told of with its health, the newest ones.
pub const STUCK_TOLD_MAX: i64 = 10;
/// How often an open page of the dashboard is fetched again while work is under way.
pub const PAGE_FOLLOWED_EVERY: Duration = Duration::from_secs(1);
/// How often an open page of the dashboard is fetched again otherwise.
pub const PAGE_REFRESHED_EVERY: Duration = Duration::from_secs(5);
/// So much of the end of a log the dashboard shows, in bytes.
pub const LOG_END_BYTES: u64 = 16 * 1024;
/// Tasks of an instance on one page of its activity.
pub const TASKS_ON_A_PAGE: i64 = 20;
/// Entries of the audit on one page of an instance's activity.
pub const AUDIT_ON_A_PAGE: i64 = 20;
/// Tasks that the dashboard's overview shows.
pub const TASKS_SHOWN: usize = 8;
/// What was read of all instances for one list of operators serves others for so long.
pub const ESTATE_FRESH: Duration = Duration::from_secs(1);
/// Instances that are read at once for operators' lists.
pub const ESTATE_PAGE: i64 = 200;
/// Instances that operators' lists are made of; of more it is said that there are more.
pub const ESTATE_INSTANCES_MAX: usize = 20_000;
/// Operations, and entries of the audit, on one page for operators.
pub const ROWS_ON_A_PAGE: i64 = 50;
/// Most characters of a name that credentials get on the dashboard.
pub const CREDENTIALS_NAME_CHARS_MAX: usize = 50;
/// Bindings of an instance, from which on the dashboard makes no more: its page shows all of them.
pub const CREDENTIALS_ON_PAGE_MAX: usize = 100;
/// Instances on one page of the operators' list.
pub const INSTANCES_ON_A_PAGE: usize = 50;

/// A broker has this long to answer the client, unless its user says otherwise. As long as CF waits.
pub const CLIENT_REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// A broker has this long to take the client's connection.
pub const CLIENT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer that the client reads, in bytes; downloads apart.
pub const CLIENT_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Pause of the client before its first look at an operation: many are over by then.
pub const CLIENT_FIRST_LOOK: Duration = Duration::from_millis(300);
/// Pause between two looks of the client, where the broker asks for none.
pub const CLIENT_POLL: Duration = Duration::from_secs(2);
/// A broker has this long to take a key away before the client asks for the deletion of its instance, which
/// takes the key along.
pub const CLIENT_UNBIND_PATIENCE: Duration = Duration::from_secs(10);
/// Lines that the client prints of a log, where its user names no number.
pub const CLIENT_LOG_LINES: usize = 20;
/// Longest pause that a broker may ask the client for.
pub const CLIENT_POLL_MAX: Duration = Duration::from_secs(3600);
/// The client looks no longer than this for the end of an operation, where the plan says nothing.
pub const CLIENT_POLLING_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Instances that the client asks for at once.
pub const CLIENT_LOOKS_AT_ONCE: usize = 8;
/// How often the client tries to delete what it cannot know to be there.
pub const ORPHAN_TRIES_MAX: u32 = 4;
/// Pause before such a deletion is tried again; doubled for each further try.
pub const ORPHAN_RETRY_FIRST: Duration = Duration::from_millis(500);
