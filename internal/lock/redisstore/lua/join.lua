-- Makes a holder's lock the token's as well ("join"), or instead ("takeover", which nobody may
-- share).
-- ARGV: 7 ttl, ms  8 the holder's token  9 join or takeover  10 record
-- Returns {1, fence}, or {0} when that holder does not have it any more.
if redis.call('EXISTS', ENDED .. TOKEN) == 1 then return {0} end
local TTL, HOLDER, MODE, RECORD = ARGV[7], ARGV[8], ARGV[9], ARGV[10]
if redis.call('GET', LOCK) ~= HOLDER or redis.call('HGET', META, 'owner') ~= HOLDER then return {0} end
if MODE == 'takeover' then
	if shares() > redis.call('HEXISTS', META, 's:' .. HOLDER) then return {0} end
	redis.call('SET', ENDED .. HOLDER, 'taken over', 'PX', DAY)
	local fence = grant(TOKEN, RECORD, TTL)
	event('taken_over', RECORD, 'fence', int(fence))
	return {1, fence}
end
leave_queue(TOKEN)
redis.call('HSET', META, 's:' .. TOKEN, '1')
redis.call('PEXPIRE', LOCK, TTL)
redis.call('PEXPIRE', META, DAY)
return {1, tonumber(redis.call('HGET', META, 'fence'))}
