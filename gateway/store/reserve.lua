-- Take all claims or none. KEYS: counters. ARGV[1]: last moment (ms, this server's clock) at which the caller still waits;
-- then per key: amount, limit, expiry in ms ('' = never), lease ('' = a plain counter).
-- Replies {} when taken, {0} when too late, {index, used} for the first claim that does not fit.
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

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now > tonumber(ARGV[1]) then return {0} end

for index, key in ipairs(KEYS) do
  local at = 4 * index - 2
  local used
  if ARGV[at + 3] == '' then
    used = redis.call('GET', key) or '0'
  else
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    local count = redis.call('ZCARD', key)
    if redis.call('ZSCORE', key, ARGV[at + 3]) then count = count - 1 end
    used = string.format('%d', count)
  end
  if not fits(used, ARGV[at], ARGV[at + 1]) then return {index, used} end
end

for index, key in ipairs(KEYS) do
  local at = 4 * index - 2
  local expires, lease = ARGV[at + 2], ARGV[at + 3]
  if lease == '' then
    redis.call('INCRBY', key, ARGV[at])
    if expires ~= '' then redis.call('PEXPIREAT', key, expires, 'NX') end
  else
    redis.call('ZADD', key, expires == '' and '+inf' or expires, lease)
    if expires == '' then
      redis.call('PERSIST', key)
    elseif redis.call('PEXPIREAT', key, expires, 'NX') == 0 then
      redis.call('PEXPIREAT', key, expires, 'GT')
    end
  end
end
return {}
