-- Deletes a consumer that holds nothing; deleting one that does would lose its pending entries. The last one to
-- leave an empty stream deletes the stream, so that labels that are gone leave nothing behind; consumers of dead
-- processes that hold nothing do not count.
-- KEYS[1] match stream
-- ARGV[1] group, ARGV[2] consumer, ARGV[3] idle ms from which another consumer is dead
-- Reply: 1 when the consumer is gone, 0 when it still holds entries.
local held = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])
if held.err then return 1 end
if #held > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
if redis.call('XLEN', KEYS[1]) > 0 or #redis.call('XINFO', 'GROUPS', KEYS[1]) > 1 then return 1 end
for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local info = {}
  for i = 1, #flat, 2 do info[flat[i]] = flat[i + 1] end
  if info.pending > 0 or info.idle < tonumber(ARGV[3]) then return 1 end
end
redis.call('DEL', KEYS[1])
return 1
