-- Tells a server whether the holder, or one who shares its lock, has declared an update, and then
-- keeps the lock for as long as the server may work. From then on renewals say that a server asks.
-- What was declared goes with the grant or the share under which it was declared.
-- ARGV: 7 ref  8 old object id  9 new object id  10 for how long the lock must last, ms
-- Returns {'' or why not, holder}.
local REF, OLD, NEW, LEAST = ARGV[7], ARGV[8], ARGV[9], tonumber(ARGV[10])
remember_end(GUARDED, 'yes', 7 * DAY)
local owner = redis.call('GET', LOCK)
if not owner or owner == ICE or redis.call('HGET', META, 'owner') ~= owner then return {'not-held', holder()} end
local why = 'not-declared'
for _, field in ipairs(redis.call('HKEYS', META)) do
	local intent = string.sub(field, 1, 2) == 'i:' and redis.call('HGET', META, field) or ''
	for line in string.gmatch(intent, '[^\n]+') do
		local ref, old, new = string.match(line, '^(%S+) (%S+) (%S+)$')
		if ref == REF and new == NEW then
			if old == OLD then
				extend(LEAST)
				return {'', holder()}
			end
			why = 'moved'
		end
	end
end
return {why, holder()}
