-- Deletes records whatever their status, with their places in the queue and the listings, and their labels.
-- KEYS 1 tasks  2 queue  3 indexing  4 ended  5 facts
-- ARGV 1 prefix of task keys  2 prefix of label keys  3 prefix of removal marks  4 prefix of tasks_of
--      5 milliseconds that a mark lasts  6… task ids
-- The keys made of the prefixes share the slot by their tag. An open task leaves a mark, so that what an
-- indexer still reports of it (or of an attempt that was given up) is not adopted (task_adopt).
-- Reply: of each record found, its fields and values
local found = {}
for i = 6, #ARGV do
  local id = ARGV[i]
  local fields = redis.call('HGETALL', ARGV[1] .. id)
  if #fields > 0 then
    local task = redis.call('HMGET', ARGV[1] .. id, 'list_id', 'status')
    if task[1] then
      free_label(ARGV[2] .. task[1], id)
      redis.call('ZREM', ARGV[4] .. task[1], id)
    end
    if task[2] == 'indexing' or task[2] == 'pending' then redis.call('SET', ARGV[3] .. id, '1', 'PX', ARGV[5]) end
    redis.call('DEL', ARGV[1] .. id)
    found[#found + 1] = fields
  end
  drop_facts(KEYS[1], KEYS[5], id)
  redis.call('ZREM', KEYS[1], id)
  redis.call('ZREM', KEYS[2], id)
  redis.call('SREM', KEYS[3], id)
  redis.call('ZREM', KEYS[4], id)
end
return found
