// A queue of 2**LOG2 entries whose head can be seen before it is taken.
module fifo #(
    parameter int WIDTH = 64,
    parameter int LOG2 = 3
) (
    input  logic             clk,
    input  logic             rst,
    input  logic             push,
    input  logic [WIDTH-1:0] tail,
    input  logic             pop,
    output logic [WIDTH-1:0] head,
    output logic [   LOG2:0] level
);
  logic [WIDTH-1:0] entries [0:(1<<LOG2)-1];
  logic [LOG2-1:0] from, to;
  assign head = entries[from];
  always_ff @(posedge clk) begin
    if (push) entries[to] <= tail;
    if (rst) begin
      from  <= '0;
      to    <= '0;
      level <= '0;
    end else begin
      if (push) to <= to + 1'b1;
      if (pop) from <= from + 1'b1;
      if (push && !pop) level <= level + 1'b1;
      else if (pop && !push) level <= level - 1'b1;
    end
  end
endmodule
