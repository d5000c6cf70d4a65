-- Names follow what platforms say in the context; until now they stayed what they were at first.
-- What the broker named by itself keeps its name. An escaped NUL cannot be taken out of its JSON.
UPDATE instances SET name = context::json ->> 'instance_name'
WHERE restored_from IS NULL
  AND CASE WHEN position('\u0000' IN context) = 0
           THEN json_typeof(context::json -> 'instance_name') = 'string'
                AND octet_length(context::json ->> 'instance_name') BETWEEN 1 AND 255
           ELSE false
      END;
