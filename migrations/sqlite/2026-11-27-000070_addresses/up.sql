-- A member has an address for each of its engine's ports, in place of one host and two ports.
UPDATE deployments SET members = (
    SELECT json_group_array(json(json_set(
        json_remove(member.value, '$.host', '$.client_port', '$.peer_port'),
        '$.addresses', json_object(
            'client', json_object(
                'host', json_extract(member.value, '$.host'),
                'port', json_extract(member.value, '$.client_port')
            ),
            'peer', json_object(
                'host', json_extract(member.value, '$.host'),
                'port', json_extract(member.value, '$.peer_port')
            )
        )
    )))
    FROM (SELECT value FROM json_each(deployments.members) ORDER BY key) AS member
)
WHERE members <> '[]';
