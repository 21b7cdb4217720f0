-- Ends what the token has: the lock, which passes to the next in line, its share of one, or a
-- place in the queue.
-- ARGV: 7 how it ended  8 for how long that is remembered, ms  9 record of one who gives up
-- waiting, or empty
-- Returns 0 not held, 1 freed, 2 handed over, 3 still held by others who share it.
FREEING = true
local owner = redis.call('GET', LOCK)
local m = redis.call('HMGET', META, 'owner', 'record', 'fence', 's:' .. TOKEN)
local ticket = redis.call('ZSCORE', QUEUE, TOKEN)
local arrived = ticket and arrival(TOKEN, ticket)
leave_queue(TOKEN) -- a full server allows this, and after it the rest
redis.call('DEL', WAKE .. TOKEN)
-- An acquire or a renewal that is still on its way must not take back what was released.
remember_end(TOKEN, ARGV[7], ARGV[8])
if ticket and ARGV[9] ~= '' then
	event(ARGV[7], ARGV[9], 'wait_ms', ms(NOW - arrived))
end

local known = owner and m[1] == owner
if not owner then
	free_or_hand_over()
	return 0
end
if known and not m[4] or not known and owner ~= TOKEN then
	if ticket then call_first() end
	return 0
end
if known and shares() > 1 then
	redis.call('HDEL', META, 's:' .. TOKEN, 'r:' .. TOKEN, 'i:' .. TOKEN)
	return 3
end
if known then event('released', m[2], 'fence', m[3], 'hold_ms', held()) end
return free_or_hand_over() and 2 or 1
