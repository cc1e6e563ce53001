package market
import ("testing";"time";"syscall";"fmt";"strings";"github.com/tapehouse/tapehouse/internal/engine";"github.com/tapehouse/tapehouse/internal/record")
func cpu() time.Duration { var r syscall.Rusage; _ = syscall.Getrusage(0,&r); return time.Duration(r.Utime.Nano()+r.Stime.Nano()) }
func TestScratchPerf(t *testing.T){
 h:=newHouse(t)
 t0:=time.Now()
 h.play(600000,nil,nil)
 fmt.Println("play",time.Since(t0))
 t0=time.Now()
 c:=h.seal()
 fmt.Println("seal",time.Since(t0))
 t0=time.Now(); h.verify(0); fmt.Println("verify",time.Since(t0))
 t0=time.Now(); h.market.mustReport(t); fmt.Println("readiness",time.Since(t0))
 st:=must[states](t)(h.market.sealedStates(t.Context(),c))
 pin:=st.pin(tradeDate,false)
 s:=st["order_events"]
 row,_:=rowText(s.schema)
 x:=st["executions"]; rx,_:=rowText(x.schema)
 _=rx
 where:=" FROM "+s.quoted()+" WHERE trade_date = "+dateLiteral(tradeDate)
 var items []string
 for _,f:=range s.schema.Fields { items=append(items, engine.QuoteIdentifier(f.Name)) }

 conv:=func(f record.Field, mode int) string { q:=engine.QuoteIdentifier(f.Name); v:=""
  switch f.Type.Kind { case record.String: v="strlen("+q+")::VARCHAR || ':' || "+q
   if mode>=2 { v="concat(strlen("+q+"), ':', "+q+")" }
   case record.Date: v="("+q+" - DATE '1970-01-01')::VARCHAR"
   case record.TimestampTZ: v="epoch_us("+q+")::VARCHAR"
   default: v=q+"::VARCHAR" }
  if !f.Required { if f.Type.Kind==record.String && mode>=2 { v="CASE WHEN "+q+" IS NULL THEN '~' ELSE "+v+" END" } else {v="coalesce("+v+", '~')"} }
  return v }
 tail:=" h"+where+")"
 head:="SELECT count(*), sum(CAST(h >> 64 AS HUGEINT)), sum(CAST(h & 18446744073709551615 AS HUGEINT)) FROM (SELECT "
 var v1,v2 []string
 for _,f:=range s.schema.Fields { v1=append(v1,conv(f,1)); v2=append(v2,conv(f,2)) }
 type nq struct{n,q string}
 for range 2 { for _,x:=range []nq{
  {"a now", head+"md5_number("+row+")"+tail},
  {"b coalesce", head+"md5_number(concat_ws(',', "+strings.Join(v1,", ")+"))"+tail},
  {"c concat", head+"md5_number(concat_ws(',', "+strings.Join(v2,", ")+"))"+tail},
  {"d pipes", head+"md5_number("+strings.Join(v1," || ',' || ")+")"+tail},
  {"e pipes text", "SELECT max(strlen(h)) FROM (SELECT "+strings.Join(v1," || ',' || ")+tail},
  {"f b text", "SELECT max(strlen(h)) FROM (SELECT concat_ws(',', "+strings.Join(v1,", ")+")"+tail},
  {"g md5 only", head+"md5_number(record_stream||record_stream||record_stream||record_stream||record_stream)"+tail},
  {"h md5 short nosplit", "SELECT max(h) FROM (SELECT md5_number(record_stream||record_stream||record_stream||record_stream||record_stream)"+tail},
 }{
  a,b:=cpu(),time.Now(); if err:=h.market.query(t.Context(),pin,x.q,func(r []any) error{fmt.Println(x.n,time.Since(b), cpu()-a);return nil});err!=nil{t.Error(x.n,err)}
 }}
}
