UPDATE deployments SET members = (
    SELECT json_group_array(json(json_set(
        json_remove(member.value, '$.addresses'),
        '$.host', json_extract(member.value, '$.addresses.client.host'),
        '$.client_port', json_extract(member.value, '$.addresses.client.port'),
        '$.peer_port', json_extract(member.value, '$.addresses.peer.port')
    )))
    FROM (SELECT value FROM json_each(deployments.members) ORDER BY key) AS member
)
WHERE members <> '[]';
