-- What a repair repairs: a member, and why (JSON).
ALTER TABLE operations ADD COLUMN repair TEXT;
-- Members that were not part of their cluster yet say so from now on.
UPDATE deployments SET members = replace(members, '"peer_port":', '"membership":"new","peer_port":')
 WHERE instance_id IN (SELECT id FROM instances WHERE state = 'provisioning');
