//! Limits of work in clusters of Kubernetes, with their units in their names.

use std::time::Duration;

/// The API server of a cluster has this long to answer a call.
pub const API_CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// And this long to take a connection.
pub const API_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A broker that looks after a cluster of an API server, and was not heard of for this long, is gone.
pub const CLUSTER_LEASE: Duration = Duration::from_secs(15);
/// For so long after it was heard of last it may do anything there: less, by what a call takes to be made.
pub const CLUSTER_LEASE_HELD: Duration = Duration::from_secs(10);
/// How often it lets itself be heard of there.
pub const CLUSTER_LEASE_RENEWAL: Duration = Duration::from_secs(3);
/// What was seen of a member's files in a cluster of an API server is told for so long without another look.
pub const CLUSTER_FILES_AGE_MAX: Duration = Duration::from_secs(4);
/// And for so long where they were as large at several looks.
pub const CLUSTER_FILES_IDLE_AGE_MAX: Duration = Duration::from_secs(16);
/// Objects that an API server is asked for at once, where there may be many of them.
pub const OBJECTS_LISTED_AT_ONCE: u32 = 100;
/// An API server tells of changes over one connection for so long; then it is asked anew.
pub const WATCH_LIFE: Duration = Duration::from_secs(280);
/// One that was told to tell of changes says something once a minute. After so long it is not heard of.
pub const WATCH_SILENCE_MAX: Duration = Duration::from_secs(90);
/// Pause before it is asked again to tell of changes.
pub const WATCH_PAUSE: Duration = Duration::from_secs(1);
/// After so long all is listed anew, whatever was told of changes.
pub const WATCH_RESYNC: Duration = Duration::from_secs(30 * 60);
/// Pause after the first look at what a cluster does; doubled for each further one.
pub const CLUSTER_POLL_FIRST: Duration = Duration::from_millis(100);
/// Longest pause between two looks at what a cluster does.
pub const CLUSTER_POLL_MAX: Duration = Duration::from_secs(1);
/// A pod has this long to be placed, to get its volumes and images, and to start.
pub const POD_START_WAIT: Duration = Duration::from_secs(180);
/// Work on the volume of a member that is to run waits for its pod so long.
pub const KEEPER_WAIT: Duration = Duration::from_secs(10);
/// The cluster's provider has this long to give a member's load balancer an address before that is told of, and
/// begun again.
pub const LOAD_BALANCER_WAIT: Duration = Duration::from_secs(30);
/// A pod that was told to end must be gone so long after its grace. One on a machine that is lost never is.
pub const POD_END_WAIT: Duration = Duration::from_secs(60);
/// A pod for work on a volume ends by itself after this long.
pub const BENCH_POD_LIFE: Duration = Duration::from_secs(15 * 60);
/// A pod that holds a staged file ends by itself after this long.
pub const STAGE_POD_LIFE: Duration = Duration::from_secs(24 * 3600);
/// A command that works on a member's volume has this long to end.
pub const BENCH_COMMAND_TIMEOUT: Duration = Duration::from_secs(120);
/// The API server has this long to go by a role or a quota that it was told of.
pub const RIGHTS_WAIT: Duration = Duration::from_secs(10);
/// What keeps the objects of a deployment, or a namespace, from going is told of after this long.
pub const DESTROY_WAIT: Duration = Duration::from_secs(60);
/// Least memory of a container, in bytes: less does not start.
pub const POD_MEMORY_BYTES_MIN: u64 = 32 * 1024 * 1024;
/// Least size of a member's volume, in bytes.
pub const POD_VOLUME_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Largest volume that a cluster is asked for, in bytes: what the common kinds of storage offer.
pub const POD_VOLUME_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024 * 1024;
