//! Rows of deployments and of the ports they hold.

use std::collections::HashSet;

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::{
    dsl::{count_star, sql, sum},
    prelude::*,
    sql_types::Bool,
};

use super::{
    Conn, StoreError, each, from_json, parse,
    prepared::Prepared,
    schema::{deployments, instances, placed, ports},
    sealed_under, to_json,
};
use crate::model::{
    address::Address,
    capacity::Placed,
    deployment::{Deployment, Member},
    ids::{DeploymentId, InstanceId},
    tenant::Tenant,
    version::Version,
};

#[derive(Queryable, Insertable)]
#[diesel(table_name = deployments)]
struct Row {
    id: String,
    instance_id: String,
    cluster_id: String,
    engine: String,
    version: String,
    units: i32,
    members: String,
    sealed_secrets: Option<String>,
    closed_since: Option<NaiveDateTime>,
    name: String,
}

impl Row {
    fn into_model(self) -> Result<(Deployment, Option<String>), StoreError> {
        let deployment = Deployment {
            id: parse("a deployment's id", &self.id)?,
            instance: parse("an instance's id", &self.instance_id)?,
            name: self.name,
            cluster: self.cluster_id,
            engine: self.engine,
            version: parse("a deployment's version", &self.version)?,
            units: u32::try_from(self.units)
                .map_err(|e| StoreError::unreadable("a deployment's units", e))?,
            members: from_json("a deployment's members", &self.members)?,
            closed_since: self.closed_since.map(|at| at.and_utc()),
        };
        Ok((deployment, self.sealed_secrets))
    }
}

/// Adds a deployment that has no members yet.
pub fn insert(conn: &mut Conn<'_>, deployment: &Deployment) -> Result<(), StoreError> {
    let row = Row {
        id: deployment.id.to_string(),
        instance_id: deployment.instance.to_string(),
        cluster_id: deployment.cluster.clone(),
        engine: deployment.engine.clone(),
        version: deployment.version.to_string(),
        units: units_column(deployment)?,
        members: to_json(&deployment.members)?,
        sealed_secrets: None,
        closed_since: deployment.closed_since.map(|at| at.naive_utc()),
        name: deployment.name.clone(),
    };
    let insert = diesel::insert_into(deployments::table).values(row);
    each!(conn, |c| Prepared(insert).execute(c))?;
    Ok(())
}

/// The deployment behind an instance, and its sealed secrets once they are made.
pub fn of_instance(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
) -> Result<Option<(Deployment, Option<String>)>, StoreError> {
    let row: Option<Row> = each!(conn, |c| deployments::table
        .filter(deployments::instance_id.eq(instance.as_str()))
        .first(c)
        .optional())?;
    row.map(Row::into_model).transpose()
}

/// Whether there is a deployment of that id, or one without a row that is thrown away again ([`hold_aside`]).
pub fn is_known(conn: &mut Conn<'_>, id: &DeploymentId) -> Result<bool, StoreError> {
    let found: Option<String> = each!(conn, |c| deployments::table
        .find(id.as_str())
        .select(deployments::id)
        .first(c)
        .optional())?;
    if found.is_some() {
        return Ok(true);
    }
    let holds: Option<String> = each!(conn, |c| ports::table
        .filter(ports::deployment_id.eq(id.as_str()))
        .select(ports::deployment_id)
        .first(c)
        .optional())?;
    Ok(holds.is_some())
}

/// Instances that are usable, in the words of the partial index: with a variable in it, the index would
/// not be used.
const IS_USABLE: &str = "instances.state = 'ready'";

/// The usable deployments after `after` in the order of their ids, at most `limit`.
pub fn usable_after(
    conn: &mut Conn<'_>,
    after: &str,
    limit: i64,
) -> Result<Vec<Deployment>, StoreError> {
    let rows: Vec<Row> = each!(conn, |c| instances::table
        .inner_join(deployments::table.on(deployments::id.eq(instances::deployment_id)))
        .filter(sql::<Bool>(IS_USABLE))
        .filter(instances::deployment_id.gt(after))
        .order(instances::deployment_id)
        .limit(limit)
        .select(deployments::all_columns)
        .load(c))?;
    rows.into_iter()
        .map(|row| Ok(row.into_model()?.0))
        .collect()
}

/// How many usable deployments run each version: engine, version, number.
pub fn versions_in_use(conn: &mut Conn<'_>) -> Result<Vec<(String, Version, usize)>, StoreError> {
    let rows: Vec<(String, String, i64)> = each!(conn, |c| instances::table
        .inner_join(deployments::table.on(deployments::id.eq(instances::deployment_id)))
        .filter(sql::<Bool>(IS_USABLE))
        .group_by((deployments::engine, deployments::version))
        .select((deployments::engine, deployments::version, count_star()))
        .load(c))?;
    let counted = rows.into_iter().map(|(engine, version, number)| {
        let version = parse("a deployment's version", &version)?;
        let number = usize::try_from(number);
        Ok((engine, version, number.unwrap_or_default()))
    });
    counted.collect()
}

/// Writes down that a deployment lets nobody in but the broker, or lets its users in.
pub fn set_closed(
    conn: &mut Conn<'_>,
    id: &DeploymentId,
    since: Option<DateTime<Utc>>,
) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(
        deployments::table.find(id.as_str())
    )
    .set(deployments::closed_since.eq(since.map(|at| at.naive_utc())))
    .execute(c))?;
    Ok(())
}

/// One deployment's sealed secrets with the place that they were sealed for: the newest one's.
pub fn newest_sealed(conn: &mut Conn<'_>) -> Result<Option<(String, String)>, StoreError> {
    let row: Option<Row> = each!(conn, |c| deployments::table
        .filter(deployments::sealed_secrets.is_not_null())
        .order(deployments::id.desc())
        .first(c)
        .optional())?;
    let Some((deployment, Some(sealed))) = row.map(Row::into_model).transpose()? else {
        return Ok(None);
    };
    Ok(Some((deployment.seal_context(), sealed)))
}

/// Whether secrets of a deployment are sealed under a key with none of these names.
pub fn is_sealed_otherwise(conn: &mut Conn<'_>, names: &[String]) -> Result<bool, StoreError> {
    let found: Option<String> = each!(conn, |c| {
        let sealed = deployments::table.filter(deployments::sealed_secrets.is_not_null());
        let mut otherwise = sealed.select(deployments::id).into_boxed();
        for name in names {
            let under = deployments::sealed_secrets.not_like(sealed_under(name));
            otherwise = otherwise.filter(under.escape('\\'));
        }
        otherwise.first(c).optional()
    })?;
    Ok(found.is_some())
}

/// Deployments with their sealed secrets, of those that have some after `after` by id, at most `limit`.
pub fn sealed_after(
    conn: &mut Conn<'_>,
    after: &str,
    limit: i64,
) -> Result<Vec<(Deployment, String)>, StoreError> {
    let rows: Vec<Row> = each!(conn, |c| deployments::table
        .filter(deployments::id.gt(after))
        .filter(deployments::sealed_secrets.is_not_null())
        .order(deployments::id)
        .limit(limit)
        .load(c))?;
    let mut found = Vec::new();
    for row in rows {
        if let (deployment, Some(sealed)) = row.into_model()? {
            found.push((deployment, sealed));
        }
    }
    Ok(found)
}

/// Keeps a deployment's secrets as they are sealed now.
pub fn set_sealed(conn: &mut Conn<'_>, id: &DeploymentId, sealed: &str) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(
        deployments::table.find(id.to_string())
    )
    .set(deployments::sealed_secrets.eq(sealed))
    .execute(c))?;
    Ok(())
}

/// All instances on a cluster, whatever state they are in; of those that are becoming larger, the units
/// that they become. It stays true until a transaction that writes ends.
pub fn placed_on(conn: &mut Conn<'_>, cluster: &str) -> Result<Placed, StoreError> {
    // Counted by the database, whenever a deployment comes, goes or grows.
    let found: Option<(i64, i64)> = each!(conn, |c| placed::table
        .find(cluster)
        .select((placed::units, placed::instances))
        .first(c)
        .optional())?;
    let (units, instances) = found.unwrap_or_default();
    let growth = growth(conn, |_, deployment| Ok(deployment.cluster == cluster))?;
    Ok(Placed {
        units: units.unsigned_abs() + growth,
        instances: instances.unsigned_abs(),
    })
}

/// The same of a tenant's instances, wherever they are.
pub fn units_of(conn: &mut Conn<'_>, tenant: &Tenant) -> Result<u64, StoreError> {
    let account = to_json(&tenant.account)?;
    let units: Option<i64> = each!(conn, |c| deployments::table
        .inner_join(instances::table.on(instances::id.eq(deployments::instance_id)))
        .filter(super::instance::owned_by(tenant, &account))
        .select(sum(deployments::units))
        .first(c))?;
    let growth = growth(conn, |conn, deployment| {
        Ok(super::instance::get(conn, &deployment.instance)?.tenant == *tenant)
    })?;
    Ok(units.unwrap_or(0).unsigned_abs() + growth)
}

/// The units by which some deployments are becoming larger.
fn growth(
    conn: &mut Conn<'_>,
    counts: impl Fn(&mut Conn<'_>, &Deployment) -> Result<bool, StoreError>,
) -> Result<u64, StoreError> {
    let mut units = 0;
    for update in super::operation::active_updates(conn)? {
        if let Some((deployment, _)) = of_instance(conn, &update.instance)?
            && counts(conn, &deployment)?
            && let Some(change) = update.change
        {
            units += u64::from(change.goal().units.saturating_sub(deployment.units));
        }
    }
    Ok(units)
}

/// Instances that are on none of `clusters`, with the cluster that they are on, at most `limit`.
pub fn on_other_clusters(
    conn: &mut Conn<'_>,
    clusters: &[String],
    limit: i64,
) -> Result<Vec<(InstanceId, String)>, StoreError> {
    let rows: Vec<(String, String)> = each!(conn, |c| deployments::table
        .filter(deployments::cluster_id.ne_all(clusters))
        .order((deployments::cluster_id, deployments::instance_id))
        .select((deployments::instance_id, deployments::cluster_id))
        .limit(limit)
        .load(c))?;
    rows.into_iter()
        .map(|(id, cluster)| Ok((parse("an instance's id", &id)?, cluster)))
        .collect()
}

/// The deployments on a cluster that members were allocated for, at most `limit`.
pub fn allocated_on(
    conn: &mut Conn<'_>,
    cluster: &str,
    limit: i64,
) -> Result<Vec<DeploymentId>, StoreError> {
    let ids: Vec<String> = each!(conn, |c| deployments::table
        .filter(deployments::cluster_id.eq(cluster))
        .filter(deployments::sealed_secrets.is_not_null())
        .select(deployments::id)
        .order(deployments::id)
        .limit(limit)
        .load(c))?;
    let ids = ids.iter().map(|id| parse("a deployment's id", id));
    ids.collect()
}

/// Keeps a deployment's members and secrets, and reserves its members' ports.
pub fn allocate(
    conn: &mut Conn<'_>,
    deployment: &Deployment,
    sealed_secrets: &str,
) -> Result<(), StoreError> {
    for member in &deployment.members {
        for address in member.addresses.values() {
            hold(conn, &deployment.id, address)?;
        }
    }
    set_members(conn, &deployment.id, &deployment.members)?;
    each!(conn, |c| diesel::update(
        deployments::table.find(deployment.id.as_str())
    )
    .set(deployments::sealed_secrets.eq(sealed_secrets))
    .execute(c))?;
    Ok(())
}

/// Reserves the addresses of a deployment that has no row and is thrown away again; returns false when somebody
/// has reserved one of them meanwhile.
pub fn hold_aside(conn: &mut Conn<'_>, aside: &Deployment) -> Result<bool, StoreError> {
    if held_by_another(conn, aside)?.is_some() {
        return Ok(false);
    }
    for address in aside.members.iter().flat_map(|m| m.addresses.values()) {
        hold(conn, &aside.id, address)?;
    }
    Ok(true)
}

/// Gives back the addresses that a deployment holds.
pub fn release_addresses(conn: &mut Conn<'_>, id: &DeploymentId) -> Result<(), StoreError> {
    each!(conn, |c| diesel::delete(
        ports::table.filter(ports::deployment_id.eq(id.as_str()))
    )
    .execute(c))?;
    Ok(())
}

fn hold(conn: &mut Conn<'_>, id: &DeploymentId, address: &Address) -> Result<(), StoreError> {
    let held = address.held();
    each!(conn, |c| diesel::insert_into(ports::table)
        .values((
            ports::host.eq(&held.host),
            ports::port.eq(i32::from(held.port)),
            ports::deployment_id.eq(id.as_str()),
        ))
        .execute(c))?;
    Ok(())
}

/// Keeps where the members of a deployment are reached now, and holds the addresses among these that it
/// does not hold yet; returns false when somebody else holds one of them.
pub fn readdress(
    conn: &mut Conn<'_>,
    id: &DeploymentId,
    members: &[Member],
) -> Result<bool, StoreError> {
    for address in members.iter().flat_map(|m| m.addresses.values()) {
        match holder(conn, address)? {
            Some(holder) if holder == id.as_str() => {}
            Some(_) => return Ok(false),
            None => hold(conn, id, address)?,
        }
    }
    set_members(conn, id, members)?;
    Ok(true)
}

/// Keeps the version and the size that a deployment and each of its members have now.
pub fn reshape(conn: &mut Conn<'_>, deployment: &Deployment) -> Result<(), StoreError> {
    let units = units_column(deployment)?;
    each!(conn, |c| diesel::update(
        deployments::table.find(deployment.id.as_str())
    )
    .set((
        deployments::version.eq(deployment.version.to_string()),
        deployments::units.eq(units),
    ))
    .execute(c))?;
    set_members(conn, &deployment.id, &deployment.members)
}

fn units_column(deployment: &Deployment) -> Result<i32, StoreError> {
    i32::try_from(deployment.units).map_err(|e| StoreError::unreadable("a deployment's units", e))
}

/// Keeps what was decided about a deployment's members.
pub fn set_members(
    conn: &mut Conn<'_>,
    id: &DeploymentId,
    members: &[Member],
) -> Result<(), StoreError> {
    let members = to_json(&members)?;
    each!(conn, |c| diesel::update(
        deployments::table.find(id.as_str())
    )
    .set(deployments::members.eq(&members))
    .execute(c))?;
    Ok(())
}

/// An address of a deployment's members that another one holds.
pub fn held_by_another(
    conn: &mut Conn<'_>,
    deployment: &Deployment,
) -> Result<Option<Address>, StoreError> {
    for address in deployment.members.iter().flat_map(|m| m.addresses.values()) {
        if holder(conn, address)?.is_some_and(|holder| holder != deployment.id.as_str()) {
            return Ok(Some(address.clone()));
        }
    }
    Ok(None)
}

/// The deployment that holds an address.
fn holder(conn: &mut Conn<'_>, address: &Address) -> Result<Option<String>, StoreError> {
    let held = address.held();
    Ok(each!(conn, |c| ports::table
        .find((&held.host, i32::from(held.port)))
        .select(ports::deployment_id)
        .first(c)
        .optional())?)
}

/// How many addresses deployments hold.
pub fn addresses_held(conn: &mut Conn<'_>) -> Result<i64, StoreError> {
    Ok(each!(conn, |c| ports::table.count().get_result(c))?)
}

/// The addresses at these hosts that deployments hold ([`Address::held`]).
pub fn addresses(conn: &mut Conn<'_>, hosts: &[String]) -> Result<HashSet<Address>, StoreError> {
    let held: Vec<(String, i32)> = each!(conn, |c| ports::table
        .filter(ports::host.eq_any(hosts))
        .select((ports::host, ports::port))
        .load(c))?;
    let address = |(host, port): (String, i32)| {
        let port = u16::try_from(port).map_err(|e| StoreError::unreadable("a port", e))?;
        Ok(Address::at(&host, port))
    };
    held.into_iter().map(address).collect()
}

/// Gives back a deployment's ports and forgets its members and secrets.
pub fn release(conn: &mut Conn<'_>, id: &DeploymentId) -> Result<(), StoreError> {
    release_addresses(conn, id)?;
    set_members(conn, id, &[])?;
    set_closed(conn, id, None)?;
    super::renewal::forget(conn, id)?;
    each!(conn, |c| diesel::update(
        deployments::table.find(id.as_str())
    )
    .set(deployments::sealed_secrets.eq(None::<String>))
    .execute(c))?;
    Ok(())
}

/// Removes the deployment's row, with what users wrote down beside it, what befell it and how it was.
pub fn delete(conn: &mut Conn<'_>, id: &DeploymentId) -> Result<(), StoreError> {
    super::notes::forget(conn, id)?;
    super::incident::forget(conn, id)?;
    super::reading::forget(conn, id)?;
    super::observation::forget(conn, id)?;
    each!(conn, |c| diesel::delete(
        deployments::table.find(id.as_str())
    )
    .execute(c))?;
    Ok(())
}
