-- Take all claims or none. KEYS: counters, a name of this call that is left behind for a while when they are taken (undo.lua), and
-- last the name of these counters' life (the epoch), which ends with their data.
-- ARGV[1]: last moment (ms, this server's clock) at which the caller still waits; [2]: the epoch it knows ('' = none yet);
-- [3]: positions of counters whose values it wants, with commas. Then per counter: amount, limit, expiry in ms ('' = never),
-- lease ('' = none), flags: k = kept (must exist), s = sliding (the expiry moves), c = clock (amount is a moment).
-- Replies {} when taken, or {-3, values...} when some were asked for; {0} when too late; {-1, epoch} when it is another one;
-- {-2, indices...} of kept counters that do not exist; {index, used} for the first claim that does not fit.
-- Lua numbers are doubles, exact to 2^53 only (9,007 USD in pico-USD), so amounts are compared as two limbs of nine digits.
local function limbs(text)
  if #text <= 9 then return 0, tonumber(text) end
  return tonumber(string.sub(text, 1, -10)), tonumber(string.sub(text, -9))
end

local function fits(used, amount, limit)
  local used_high, used_low = limbs(used)
  local amount_high, amount_low = limbs(amount)
  local limit_high, limit_low = limbs(limit)
  local high, low = used_high + amount_high, used_low + amount_low
  if low >= 1e9 then high, low = high + 1, low - 1e9 end
  return high < limit_high or (high == limit_high and low <= limit_low)
end

local LATELY = 300 -- seconds in which a call whose answer was lost can be undone

local function has(flags, flag) return string.find(flags, flag, 1, true) ~= nil end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now > tonumber(ARGV[1]) then return {0} end

local epoch = life(KEYS[#KEYS], time)
if epoch ~= ARGV[2] then return {-1, epoch} end

local refused
local missing = {-2}
for index = 1, #KEYS - 2 do
  local key, at = KEYS[index], 5 * index - 1
  local amount, lease, flags = ARGV[at], ARGV[at + 3], ARGV[at + 4]
  local used
  if lease == '' then
    used = redis.call('GET', key)
    if not used and has(flags, 'k') then
      missing[#missing + 1] = index
      used, amount = '0', '0'
    elseif has(flags, 'c') then
      used = string.format('%d', math.max(0, tonumber(amount) - tonumber(used or amount)))
      amount = '0'
    end
    used = used or '0'
  else
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    local count = redis.call('ZCARD', key)
    if redis.call('ZSCORE', key, lease) then count = count - 1 end
    used = string.format('%d', count)
  end
  if not refused and not fits(used, amount, ARGV[at + 1]) then refused = {index, used} end
end
if #missing > 1 then return missing end
if refused then return refused end

-- Not longer than a sliding counter lives: one that ended and was summed anew knows nothing of what is undone.
local remembered, taken = now + LATELY * 1000, false
for index = 1, #KEYS - 2 do
  local at = 5 * index - 1
  local amount, expires, lease, flags = ARGV[at], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  if has(flags, 's') and expires ~= '' then remembered = math.min(remembered, tonumber(expires)) end
  taken = taken or amount ~= '0' or lease ~= ''
end
if taken and remembered > now then
  redis.call('SET', KEYS[#KEYS - 1], '', 'PXAT', string.format('%d', remembered))
end
for index = 1, #KEYS - 2 do
  local key, at = KEYS[index], 5 * index - 1
  local expires, lease, flags = ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  if lease == '' then
    if has(flags, 'c') then
      redis.call('SET', key, ARGV[at], 'NX')
    else
      redis.call('INCRBY', key, ARGV[at])
    end
    if expires ~= '' and redis.call('PEXPIREAT', key, expires, 'NX') == 0 and has(flags, 's') then
      redis.call('PEXPIREAT', key, expires, 'GT')
    end
  else
    redis.call('ZADD', key, expires == '' and '+inf' or expires, lease)
    if expires == '' then
      redis.call('PERSIST', key)
    elseif redis.call('PEXPIREAT', key, expires, 'NX') == 0 then
      redis.call('PEXPIREAT', key, expires, 'GT')
    end
  end
end

if ARGV[3] == '' then return {} end
local values = {-3}
for index in string.gmatch(ARGV[3], '%d+') do
  values[#values + 1] = redis.call('GET', KEYS[tonumber(index)])
end
return values
