-- A member has an address for each of its engine's ports, in place of one host and two ports.
UPDATE deployments SET members = (
    SELECT jsonb_agg(
        (member.value - 'host' - 'client_port' - 'peer_port') || jsonb_build_object(
            'addresses', jsonb_build_object(
                'client', jsonb_build_object(
                    'host', member.value -> 'host', 'port', member.value -> 'client_port'
                ),
                'peer', jsonb_build_object(
                    'host', member.value -> 'host', 'port', member.value -> 'peer_port'
                )
            )
        )
        ORDER BY member.place
    )
    FROM jsonb_array_elements(deployments.members::jsonb) WITH ORDINALITY AS member (value, place)
)::text
WHERE members <> '[]';
