-- Names follow what platforms say in the context; until now they stayed what they were at first.
-- What the broker named by itself keeps its name.
UPDATE instances SET name = json_extract(context, '$.instance_name')
WHERE restored_from IS NULL
  AND json_valid(context)
  AND json_type(context, '$.instance_name') = 'text'
  AND length(CAST(json_extract(context, '$.instance_name') AS BLOB)) BETWEEN 1 AND 255;
