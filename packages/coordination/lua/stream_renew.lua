-- Resets the idle time of entries that a consumer still holds, so that nobody takes it for dead.
-- Entries that another consumer claimed meanwhile are left with it: an XCLAIM alone would take them back.
-- KEYS[1] match stream
-- ARGV[1] group, ARGV[2] consumer, ARGV[3..] entry ids
-- Reply: ids that the consumer holds no longer (answered, claimed by another, or deleted).
local lost = {}
for i = 3, #ARGV do
  local own = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2])
  local renewed = {}
  if not own.err and #own == 1 then
    renewed = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
  end
  if #renewed == 0 then lost[#lost + 1] = ARGV[i] end
end
return lost
