-- The open task of each label, '' where there is none; a key left behind by a lost or ended task counts as none.
-- KEYS label_task:<label> of each label asked for
-- ARGV 1 prefix of task keys (same slot by its tag)
-- Reply: as many ids as KEYS
local open = {}
for i = 1, #KEYS do open[i] = open_task_of(KEYS[i], ARGV[1]) or '' end
return open
