//! The tables, as both databases have them. The migrations are the truth; this is what the
//! queries are checked against.

diesel::table! {
    instances (id) {
        id -> Text,
        service_id -> Text,
        plan_id -> Text,
        platform -> Text,
        organization -> Text,
        space -> Text,
        deployment_id -> Text,
        context -> Text,
        parameters -> Text,
        request -> Text,
        state -> Text,
        created_at -> Timestamp,
        name -> Nullable<Text>,
        restored_from -> Nullable<Text>,
        account -> Text,
        ordinal -> BigInt,
    }
}

diesel::table! {
    deployments (id) {
        id -> Text,
        instance_id -> Text,
        cluster_id -> Text,
        engine -> Text,
        version -> Text,
        units -> Integer,
        members -> Text,
        sealed_secrets -> Nullable<Text>,
        closed_since -> Nullable<Timestamp>,
        name -> Text,
    }
}

diesel::table! {
    deleted_instances (deployment_id) {
        deployment_id -> Text,
        instance_id -> Text,
        service_id -> Text,
        plan_id -> Text,
        platform -> Text,
        organization -> Text,
        space -> Text,
        account -> Text,
        name -> Nullable<Text>,
        cluster_id -> Text,
        engine -> Text,
        version -> Text,
        units -> Integer,
        created_at -> Timestamp,
        deleted_at -> Timestamp,
        kept_until -> Timestamp,
        final_backup_failure -> Nullable<Text>,
        restored_from -> Nullable<Text>,
    }
}

diesel::table! {
    seen_states (deployment_id) {
        deployment_id -> Text,
        usable -> Bool,
        whole -> Bool,
        since -> Timestamp,
        full_since -> Nullable<Timestamp>,
        open_since -> Nullable<Timestamp>,
    }
}

diesel::table! {
    incidents (id) {
        id -> BigInt,
        deployment_id -> Text,
        at -> Timestamp,
        message -> Text,
    }
}

diesel::table! {
    brokers (id) {
        id -> Text,
        machine -> Text,
        version -> Text,
        keys -> Text,
        seen_at -> Timestamp,
        plans -> Nullable<Text>,
    }
}

diesel::table! {
    clusters (id) {
        id -> Text,
        machine -> Text,
        versions -> Text,
        seen_at -> Timestamp,
    }
}

diesel::table! {
    folders (name) {
        name -> Text,
        marker -> Text,
    }
}

diesel::table! {
    provenances (instance_id) {
        instance_id -> Text,
        source_instance -> Text,
        source_deployment -> Text,
        source_name -> Nullable<Text>,
        backup_id -> Text,
        taken_at -> Timestamp,
    }
}

diesel::table! {
    restore_times (operation_id) {
        operation_id -> Text,
        engine -> Text,
        bytes -> BigInt,
        took_ms -> BigInt,
        ended_at -> Timestamp,
    }
}

diesel::table! {
    notes (deployment_id) {
        deployment_id -> Text,
        text -> Text,
        customer_billing_code -> Text,
    }
}

diesel::table! {
    ports (host, port) {
        host -> Text,
        port -> Integer,
        deployment_id -> Text,
    }
}

diesel::table! {
    bindings (instance_id, id) {
        instance_id -> Text,
        id -> Text,
        parameters -> Text,
        request -> Text,
        database_user -> Text,
        sealed_secrets -> Text,
        sealed_credentials -> Nullable<Text>,
        state -> Text,
        created_at -> Timestamp,
        expires_at -> Nullable<Timestamp>,
        expiry_due -> Nullable<Timestamp>,
    }
}

diesel::table! {
    tokens (fingerprint) {
        fingerprint -> Text,
        instance_id -> Text,
        binding_id -> Text,
        created_at -> Timestamp,
    }
}

diesel::table! {
    audit (id) {
        id -> BigInt,
        at -> Timestamp,
        action -> Text,
        origin -> Text,
        instance_id -> Text,
        binding_id -> Nullable<Text>,
        operation_id -> Text,
        platform -> Nullable<Text>,
        actor -> Nullable<Text>,
        request_id -> Nullable<Text>,
        backup_id -> Nullable<Text>,
        address -> Nullable<Text>,
        times -> BigInt,
        words -> Nullable<Text>,
    }
}

diesel::table! {
    audit_horizon (id) {
        id -> Integer,
        forgotten_before -> Timestamp,
    }
}

diesel::table! {
    known_time (id) {
        id -> Integer,
        state -> Text,
    }
}

diesel::table! {
    backups (id) {
        id -> Text,
        instance_id -> Text,
        deployment_id -> Text,
        operation_id -> Text,
        kind -> Text,
        state -> Text,
        failure -> Nullable<Text>,
        manifest -> Nullable<Text>,
        created_at -> Timestamp,
        finished_at -> Nullable<Timestamp>,
        period -> Nullable<Text>,
        ordinal -> BigInt,
        namesake -> Integer,
        removal -> Nullable<Text>,
        removal_at -> Nullable<Timestamp>,
        note -> Text,
        pinned -> Bool,
        sealed_under -> Text,
        proof -> Nullable<Text>,
        proof_at -> Nullable<Timestamp>,
        bytes_due_at -> Nullable<Timestamp>,
        mirrored_at -> Nullable<Timestamp>,
        mirror_due_at -> Nullable<Timestamp>,
    }
}

diesel::table! {
    mirror_copies (backup_id) {
        backup_id -> Text,
        deployment_id -> Text,
        sealed_under -> Text,
        read_at -> Nullable<Timestamp>,
        tries -> Integer,
        failure -> Nullable<Text>,
        held_by -> Text,
        held_until -> Nullable<Timestamp>,
    }
}

diesel::table! {
    backup_registers (deployment_id) {
        deployment_id -> Text,
        number -> BigInt,
        written -> BigInt,
        signed_under -> Text,
        called_at -> Nullable<Timestamp>,
    }
}

diesel::table! {
    mirrors (marker) {
        marker -> Text,
        since -> Timestamp,
        failure -> Nullable<Text>,
        failed_at -> Nullable<Timestamp>,
    }
}

diesel::table! {
    uploads (backup_id) {
        backup_id -> Text,
        instance_id -> Text,
        deployment_id -> Text,
        bytes -> BigInt,
        sha256 -> Nullable<Text>,
        version -> Text,
        received -> BigInt,
        touched_at -> Timestamp,
    }
}

diesel::table! {
    upload_parts (id) {
        id -> Text,
        backup_id -> Text,
        at -> BigInt,
        stored -> Text,
        sealed_key -> Text,
    }
}

diesel::table! {
    schedules (instance_id) {
        instance_id -> Text,
        cluster_id -> Text,
        next_at -> Timestamp,
        failures -> Integer,
        hour -> Nullable<Integer>,
        weekday -> Nullable<Integer>,
        days_kept -> Nullable<Integer>,
        weeks_kept -> Nullable<Integer>,
        months_kept -> Nullable<Integer>,
        counts_from -> Nullable<Timestamp>,
    }
}

diesel::table! {
    operations (id) {
        id -> Text,
        kind -> Text,
        instance_id -> Text,
        binding_id -> Nullable<Text>,
        backup_id -> Nullable<Text>,
        source -> Nullable<Text>,
        exclusive_key -> Nullable<Text>,
        waits_for -> Text,
        state -> Text,
        halted -> Bool,
        step -> Text,
        steps_done -> Integer,
        steps_total -> Integer,
        bytes_done -> BigInt,
        bytes_total -> BigInt,
        failure -> Nullable<Text>,
        origin -> Text,
        owner -> Nullable<Text>,
        lease_until -> Nullable<Timestamp>,
        not_before -> Timestamp,
        epoch -> BigInt,
        created_at -> Timestamp,
        updated_at -> Timestamp,
        change -> Nullable<Text>,
        delete_prefix -> Nullable<Text>,
        repair -> Nullable<Text>,
        survivor -> Nullable<Text>,
        trouble -> Nullable<Text>,
        abandoned -> Bool,
        ordinal -> BigInt,
        prefix_restore -> Nullable<Text>,
        turn -> Nullable<Text>,
    }
}

diesel::table! {
    waiting (instance_id, line) {
        instance_id -> Text,
        line -> Text,
        payer -> Text,
        due -> Timestamp,
        operation_id -> Text,
    }
}

diesel::table! {
    lanes (line, payer) {
        line -> Text,
        payer -> Text,
        due -> Timestamp,
        operation_id -> Text,
    }
}

diesel::table! {
    placed (cluster_id) {
        cluster_id -> Text,
        units -> BigInt,
        instances -> BigInt,
    }
}

diesel::table! {
    operation_steps (operation_id, name) {
        operation_id -> Text,
        name -> Text,
        failures -> Integer,
        result -> Nullable<Text>,
        shortages -> Integer,
        spent_ms -> BigInt,
        waited_ms -> BigInt,
        last_error -> Nullable<Text>,
        failed_at -> Nullable<Timestamp>,
        begun_at -> Nullable<Timestamp>,
        done_at -> Nullable<Timestamp>,
    }
}

diesel::table! {
    sessions (fingerprint) {
        fingerprint -> Text,
        instance_id -> Nullable<Text>,
        origin -> Text,
        origin_mark -> Text,
        created_at -> Timestamp,
        expires_at -> Timestamp,
    }
}

diesel::table! {
    used_links (nonce) {
        nonce -> Text,
        expires_at -> Timestamp,
    }
}

diesel::table! {
    renewals (deployment_id) {
        deployment_id -> Text,
        due_at -> Timestamp,
        ends_at -> Timestamp,
        changes_at -> Nullable<Timestamp>,
    }
}

diesel::table! {
    readings (deployment_id) {
        deployment_id -> Text,
        kept -> Text,
    }
}

diesel::table! {
    told_alerts (instance_id, subject) {
        instance_id -> Text,
        subject -> Text,
        gravity -> Text,
        told -> Text,
    }
}

diesel::table! {
    outbox (ordinal) {
        ordinal -> BigInt,
        id -> Text,
        instance_id -> Text,
        body -> Text,
        made_at -> Timestamp,
        tries -> Integer,
        due_at -> Timestamp,
    }
}

diesel::table! {
    couriers (id) {
        id -> Integer,
        owner -> Text,
        held_until -> Timestamp,
    }
}

diesel::allow_tables_to_appear_in_same_query!(instances, deployments);
diesel::allow_tables_to_appear_in_same_query!(instances, renewals);
diesel::allow_tables_to_appear_in_same_query!(deployments, renewals);
diesel::allow_tables_to_appear_in_same_query!(instances, operations);
diesel::allow_tables_to_appear_in_same_query!(instances, schedules);
diesel::allow_tables_to_appear_in_same_query!(deployments, operations);
diesel::allow_tables_to_appear_in_same_query!(backups, deployments);
diesel::allow_tables_to_appear_in_same_query!(backups, instances);
diesel::allow_tables_to_appear_in_same_query!(backups, deleted_instances);
diesel::allow_tables_to_appear_in_same_query!(backups, mirror_copies);
diesel::allow_tables_to_appear_in_same_query!(backup_registers, deployments);
diesel::allow_tables_to_appear_in_same_query!(backup_registers, deleted_instances);
