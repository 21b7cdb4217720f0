-- Ends somebody else's hold, and that of all who share it: the lock passes to the next in line.
-- ARGV: 7 the token that was seen to hold it  8 how it ended, with who did it and why  9 record of who
-- does it  10 why
-- Returns 0 when that holder does not have it any more, else 1 freed, 2 handed over.
local HOLDER, HOW = ARGV[7], ARGV[8]
if redis.call('GET', LOCK) ~= HOLDER then return 0 end
redis.call('SET', ENDED .. HOLDER, HOW, 'PX', DAY)
local m = redis.call('HMGET', META, 'owner', 'fence', 'record')
if m[1] == HOLDER then
	for _, field in ipairs(redis.call('HKEYS', META)) do
		if string.sub(field, 1, 2) == 's:' then
			redis.call('SET', ENDED .. string.sub(field, 3), HOW, 'PX', DAY)
		end
	end
	event('broken', m[3], 'fence', m[2], 'hold_ms', held(), 'by', (who(ARGV[9])), 'reason', ARGV[10])
end
if hand_over() then return 2 end
redis.call('DEL', LOCK, META)
return 1
