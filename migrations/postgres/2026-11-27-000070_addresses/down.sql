UPDATE deployments SET members = (
    SELECT jsonb_agg(
        (member.value - 'addresses') || jsonb_build_object(
            'host', member.value #> '{addresses,client,host}',
            'client_port', member.value #> '{addresses,client,port}',
            'peer_port', member.value #> '{addresses,peer,port}'
        )
        ORDER BY member.place
    )
    FROM jsonb_array_elements(deployments.members::jsonb) WITH ORDINALITY AS member (value, place)
)::text
WHERE members <> '[]';
