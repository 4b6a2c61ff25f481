-- Notes which labels miss their list: new ones since now, those no longer named are forgotten (I4).
-- KEYS 1 epoch  2 missing_lists: hash of label to milliseconds since 1970
-- ARGV 1 epoch  2… labels
-- Reply: {'ok', label, since, …} | {'refused', reason}
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return { 'refused', 'stale_epoch' } end
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
local named = {}
for i = 2, #ARGV do
  named[ARGV[i]] = true
  redis.call('HSETNX', KEYS[2], ARGV[i], now)
end
for _, label in ipairs(redis.call('HKEYS', KEYS[2])) do
  if not named[label] then redis.call('HDEL', KEYS[2], label) end
end
local reply = redis.call('HGETALL', KEYS[2])
table.insert(reply, 1, 'ok')
return reply
