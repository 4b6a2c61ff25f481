-- Gives back entries that were read ahead but never handed to a search: they look abandoned at once, and the
-- delivery is not counted. Entries that another consumer claimed meanwhile are left with it.
-- KEYS[1] match stream
-- ARGV[1] group, ARGV[2] consumer, ARGV[3] idle ms to set, ARGV[4..] entry ids
-- Reply: how many were handed back.
local count = 0
for i = 4, #ARGV do
  local own = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2])
  if not own.err and #own == 1 then
    local deliveries = own[1][4]
    count = count + #redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i],
      'IDLE', ARGV[3], 'RETRYCOUNT', math.max(deliveries - 1, 0), 'JUSTID')
  end
end
return count
