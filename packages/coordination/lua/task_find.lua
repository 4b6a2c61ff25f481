-- Tasks that fit a filter, newest first, of one stretch of a sorted set by creation. Read-only.
-- KEYS 1 tasks or tasks_of:<label>
-- ARGV 1 prefix of task keys  2 highest score, '(…' or '+inf'  3 lowest score or '-inf'  4 most records looked at
--      5 most tasks found  6… filter (task_filter.lua)
-- Reads the records (ARGV 1 .. id, same slot by its tag).
-- Reply: {score that it came to, '' where nothing is left below; ids met without a record; tasks found}, each of these
--        {score, field, value, …}
local fits = filter_of(ARGV, 6)
local budget, most = tonumber(ARGV[4]), tonumber(ARGV[5])
local function score_of(id) return digits(tonumber(redis.call('ZSCORE', KEYS[1], id))) end
-- Without scores: to write them all out costs as much as to look at the records.
local page = redis.call('ZRANGE', KEYS[1], ARGV[2], ARGV[3], 'BYSCORE', 'REV', 'LIMIT', 0, budget)
local vanished, found = {}, {}
for _, id in ipairs(page) do
  local task_key = ARGV[1] .. id
  local fit = fits(task_key)
  if fit == nil and redis.call('EXISTS', task_key) == 0 then
    vanished[#vanished + 1] = id
  elseif fit then
    local fields = redis.call('HGETALL', task_key)
    if #fields == 0 then
      vanished[#vanished + 1] = id
    else
      table.insert(fields, 1, score_of(id))
      found[#found + 1] = fields
      if #found == most then return { fields[1], vanished, found } end
    end
  end
end
return { #page == budget and score_of(page[budget]) or '', vanished, found }
