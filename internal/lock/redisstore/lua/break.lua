-- Ends somebody else's hold, and that of all who share it: the lock passes to the next in line.
-- KEYS: 10 operator, which is never written: a user of Redis who may not touch it cannot break a
-- lock
-- ARGV: 7 the token that was seen to hold it  8 how it ended, with who did it and why  9 record of
-- who does it  10 why
-- Returns 0 when that holder does not have it any more, else 1 freed, 2 handed over.
FREEING = true
local HOLDER, HOW = ARGV[7], ARGV[8]
local owner = redis.call('GET', LOCK)
if owner ~= HOLDER then
	if how_ended(HOLDER) ~= HOW then return 0 end
	return owner and 2 or 1 -- it was carried out before
end
redis.call('PEXPIRE', META, DAY) -- a full server allows this, and after it the rest
local m = redis.call('HMGET', META, 'owner', 'fence', 'record')
if m[1] ~= HOLDER then
	remember_end(HOLDER, HOW, DAY)
else
	remember_ends(HOLDER, HOW)
	event('broken', m[3], 'fence', m[2], 'hold_ms', held(), 'by', (who(ARGV[9])), 'reason', ARGV[10])
end
return free_or_hand_over() and 2 or 1
