-- Creates a pending task at the end of the queue, unless its label has an open one (I3).
-- KEYS 1 epoch  2 task:<id>  3 tasks  4 queue  5 label_task:<label>
-- ARGV 1 epoch, '' where the creator needs none  2 task id  3 label  4 mode  5 trigger  6 prefix of task keys
-- Reads the task that KEYS 5 points to (ARGV 6 .. id, same slot by its tag).
-- Reply: {'created', field, value, …} | {'conflict', id of the open task} | {'refused', reason}
if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) ~= ARGV[1] then return { 'refused', 'stale_epoch' } end
local open = open_task_of(KEYS[5], ARGV[6])
if open then return { 'conflict', open } end
-- An id is used once: a record that ended must not come to life again.
if redis.call('EXISTS', KEYS[2]) == 1 then return { 'conflict', ARGV[2] } end

local now = now_us()
-- Strictly above the newest, so that neither equal nor backward clock readings change the order of creation.
local order = now
local newest = redis.call('ZREVRANGE', KEYS[3], 0, 0, 'WITHSCORES')
if newest[2] and tonumber(newest[2]) >= order then order = tonumber(newest[2]) + 1 end
redis.call('HSET', KEYS[2], 'task_id', ARGV[2], 'list_id', ARGV[3], 'status', 'pending', 'mode', ARGV[4],
  'trigger', ARGV[5], 'attempt', '0', 'create_us', digits(now), 'order', digits(order))
redis.call('ZADD', KEYS[3], digits(order), ARGV[2])
redis.call('ZADD', KEYS[4], digits(order), ARGV[2])
redis.call('SET', KEYS[5], ARGV[2])
local reply = redis.call('HGETALL', KEYS[2])
table.insert(reply, 1, 'created')
return reply
