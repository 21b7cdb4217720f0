-- Ends what the token has: the lock, which passes to the next in line, its share of one, or a
-- place in the queue.
-- ARGV: 7 how it ended  8 for how long that is remembered, ms  9 record of one who gives up waiting, or empty
-- Returns 0 not held, 1 freed, 2 handed over, 3 still held by others who share it.
local owner = redis.call('GET', LOCK)
local ticket = redis.call('ZSCORE', QUEUE, TOKEN)
leave_queue(TOKEN)
if ticket and ARGV[9] ~= '' then
	event(ARGV[7], ARGV[9], 'wait_ms', ms(NOW - tonumber(ticket)))
end
-- An acquire or a renewal that is still on its way must not take back what was released.
redis.call('SET', ENDED .. TOKEN, ARGV[7], 'PX', ARGV[8])
if owner then
	local shared = redis.call('HGET', META, 'owner') == owner
	local mine = shared and redis.call('HDEL', META, 's:' .. TOKEN) == 1
	if not mine and (shared or owner ~= TOKEN) then return 0 end
	if shared and shares() > 0 then return 3 end
end
if owner then
	local m = redis.call('HMGET', META, 'owner', 'record', 'fence')
	if m[1] == owner then event('released', m[2], 'fence', m[3], 'hold_ms', held()) end
end
if hand_over() then return owner and 2 or 0 end
redis.call('DEL', LOCK, META)
return owner and 1 or 0
