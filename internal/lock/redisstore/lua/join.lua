-- Makes a holder's lock the token's as well ("join"), or instead ("takeover", which nobody may
-- share).
-- ARGV: 7 ttl, ms  8 the holder's token  9 join or takeover  10 record  11 for how long a takeover
-- lasts until it is renewed, ms  12 what our share claims of our presence until it is renewed
-- 13 and on, for a takeover: tokens of those whose shares end with it
-- Returns {1, fence, whether a server asks what is declared}, or {0} when that holder does not have
-- it any more: the token may have it instead, by a hand-over or an earlier takeover, and acquire
-- confirms that.
local TTL, HOLDER, MODE, RECORD = ARGV[7], ARGV[8], ARGV[9], ARGV[10]
FIRST = ARGV[11]
local function granted(fence) return {1, fence, how_ended(GUARDED) and 1 or 0} end

if how_ended(TOKEN) then return {0} end
local owner = redis.call('GET', LOCK)
local m = redis.call('HMGET', META, 'owner', 'fence')
if m[1] ~= owner or owner ~= HOLDER or freeze() then return {0} end
if MODE == 'takeover' then
	local over = {HOLDER}
	for i = 13, #ARGV do
		if ARGV[i] ~= HOLDER then over[#over + 1] = ARGV[i] end
	end
	local others = shares()
	for _, token in ipairs(over) do others = others - redis.call('HEXISTS', META, 's:' .. token) end
	if others > 0 then return {0} end
	local fence = grant(TOKEN, RECORD, TTL, nil, 'taken_over')
	for _, token in ipairs(over) do remember_end(token, 'taken over', DAY) end
	return granted(fence)
end
leave_queue(TOKEN)
redis.call('HSET', META, 's:' .. TOKEN, ARGV[12], 'r:' .. TOKEN, RECORD)
found()
extend(TTL)
return granted(tonumber(m[2]))
