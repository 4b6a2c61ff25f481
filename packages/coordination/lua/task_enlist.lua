-- Enters tasks into the sets that a version before these sets did not keep; drops ids without a record.
-- KEYS 1 tasks  2 ended  3 facts
-- ARGV 1 prefix of task keys  2 prefix of tasks_of  3… task ids
-- The keys made of the prefixes share the slot by their tag.
-- Reply: number of ids looked at
for i = 3, #ARGV do
  local id = ARGV[i]
  local task = redis.call('HMGET', ARGV[1] .. id, 'status', 'list_id', 'end_us')
  local score = redis.call('ZSCORE', KEYS[1], id)
  if not task[1] then
    drop_facts(KEYS[1], KEYS[3], id)
    redis.call('ZREM', KEYS[1], id)
  elseif score then
    note_facts(KEYS[1], KEYS[3], ARGV[1] .. id, id)
    if task[2] then redis.call('ZADD', ARGV[2] .. task[2], score, id) end
    if task[1] == 'success' or task[1] == 'error' then
      redis.call('ZADD', KEYS[2], tonumber(task[3] or '') and task[3] or '0', id)
    end
  end
end
return #ARGV - 2
