-- Creates a pending task at the end of its priority, unless its label has an open one (I3).
-- KEYS 1 epoch  2 task:<id>  3 tasks  4 queue  5 label_task:<label>  6 tasks_of:<label>  7 facts
--      8 idempotency:<hash of the key>, only where the caller gave one
-- ARGV 1 epoch, '' where the creator needs none  2 task id  3 label  4 mode  5 trigger  6 priority
--      7 prefix of task keys  8 hash of what the idempotency key stands for  9 milliseconds that it is remembered
-- Reads the tasks that KEYS 5 and 8 point to (ARGV 7 .. id, same slot by its tag).
-- Reply: {'created' | 'replayed', field, value, …} | {'key_taken', id of its task} | {'conflict', id of the open task}
--        | {'refused', reason}
if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) ~= ARGV[1] then return { 'refused', 'stale_epoch' } end
-- Before the open task: that one may be what the first request with this key has created.
local known = KEYS[8] and redis.call('GET', KEYS[8])
if known then
  local id, stands_for = string.match(known, '^(%S+) (%S+)$')
  local fields = stands_for == ARGV[8] and redis.call('HGETALL', ARGV[7] .. id) or {}
  if #fields == 0 then return { 'key_taken', id or '' } end
  table.insert(fields, 1, 'replayed')
  return fields
end
local open = open_task_of(KEYS[5], ARGV[7])
if open then return { 'conflict', open } end
-- An id is used once: a record that ended must not come to life again.
if redis.call('EXISTS', KEYS[2]) == 1 then return { 'conflict', ARGV[2] } end

local now = now_us()
-- Strictly above the newest, so that neither equal nor backward clock readings change the order of creation.
local order = now
local newest = redis.call('ZREVRANGE', KEYS[3], 0, 0, 'WITHSCORES')
if newest[2] and tonumber(newest[2]) >= order then order = tonumber(newest[2]) + 1 end
redis.call('HSET', KEYS[2], 'task_id', ARGV[2], 'list_id', ARGV[3], 'status', 'pending', 'mode', ARGV[4],
  'trigger', ARGV[5], 'priority', ARGV[6], 'attempt', '0', 'create_us', digits(now), 'order', digits(order))
redis.call('ZADD', KEYS[3], digits(order), ARGV[2])
redis.call('ZADD', KEYS[6], digits(order), ARGV[2])
redis.call('ZADD', KEYS[4], place_at_end(KEYS[4], ARGV[6]), ARGV[2])
redis.call('SET', KEYS[5], ARGV[2])
note_facts(KEYS[3], KEYS[7], KEYS[2], ARGV[2])
if KEYS[8] then redis.call('SET', KEYS[8], ARGV[2] .. ' ' .. ARGV[8], 'PX', ARGV[9]) end
local reply = redis.call('HGETALL', KEYS[2])
table.insert(reply, 1, 'created')
return reply
