UPDATE deployments SET members = replace(members, '"membership":"new","peer_port":', '"peer_port":');
ALTER TABLE operations DROP COLUMN repair;
