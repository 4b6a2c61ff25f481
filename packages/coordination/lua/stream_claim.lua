-- Claims entries whose consumer died or left them unanswered. What was handed back unread (0 deliveries) may come in
-- numbers; of what was delivered before, one only: claiming counts as a delivery, and entries that wait behind one
-- that kills its consumer must not be charged for it.
-- KEYS[1] match stream
-- ARGV[1] group, ARGV[2] consumer, ARGV[3] idle ms from which an entry is abandoned,
-- ARGV[4] highest number of unread entries to take, ARGV[5] 1 to take a delivered one as well,
-- ARGV[6] entries looked at
-- Reply: {{id, deliveries, ...} claimed, {id, ...} pending entries that the stream no longer has (acknowledged here)}.
local claimed, gone = {}, {}
local idle = redis.pcall('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[3], '-', '+', ARGV[6])
-- No stream or no group, as after a flush: the reader makes them anew.
if idle.err then return {claimed, gone} end
local fresh, suspects = tonumber(ARGV[4]), tonumber(ARGV[5])
for _, entry in ipairs(idle) do
  local id, deliveries = entry[1], entry[4]
  local take = false
  if deliveries == 0 then
    take = fresh > 0
    if take then fresh = fresh - 1 end
  else
    take = suspects > 0
    if take then suspects = suspects - 1 end
  end
  if take then
    local got = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], id, 'RETRYCOUNT', deliveries + 1, 'JUSTID')
    if #got == 1 then
      claimed[#claimed + 1] = id
      claimed[#claimed + 1] = deliveries + 1
    else
      redis.call('XACK', KEYS[1], ARGV[1], id)
      gone[#gone + 1] = id
      if deliveries > 0 then suspects = suspects + 1 else fresh = fresh + 1 end
    end
  end
end
return {claimed, gone}
