// Fetches the command stream from memory: `count` commands of 64 bytes from `address` on, a few ahead of the core.
module axi_commands #(
    parameter int N = 8,
    parameter int ADDRESS = 40
) (
    input  logic               clk,
    input  logic               rst,
    input  logic               start,
    input  logic [ADDRESS-1:0] address,  // a multiple of 64, so that no burst crosses 4096 bytes
    input  logic [       31:0] count,
    output logic               given,    // all commands have been taken
    output logic               error,
    output logic               command_valid,
    input  logic               command_ready,
    output logic [      511:0] command,
    output logic               arvalid,
    input  logic               arready,
    output logic [ADDRESS-1:0] araddr,
    output logic [        7:0] arlen,
    input  logic               rvalid,
    output logic               rready,
    input  logic [    8*N-1:0] rdata,
    input  logic               rlast,
    input  logic [        1:0] rresp
);
  localparam int DEPTH = 2;  // log2 of the commands that are asked for ahead
  logic [31:0] to_ask, to_give;
  logic [DEPTH:0] ahead, level;
  logic asks, takes, whole;
  logic [511:0] assembled;
  assign asks = to_ask != '0 && !ahead[DEPTH] && (!arvalid || arready);
  assign takes = command_valid && command_ready;
  assign arlen = 8'(64 / N - 1);
  assign rready = 1'b1;  // there is room for all that is asked for
  assign given = to_give == '0;
  always_ff @(posedge clk) begin
    whole <= !rst && rvalid && rlast;
    if (rvalid) assembled <= 512'({rdata, assembled} >> (8 * N));
    if (rst) begin
      arvalid <= 1'b0;
      ahead <= '0;
      to_ask <= '0;
      to_give <= '0;
      error <= 1'b0;
    end else if (start) begin
      araddr <= address - ADDRESS'(64);
      to_ask <= count;
      to_give <= count;
      error <= 1'b0;
    end else begin
      if (arready) arvalid <= 1'b0;
      if (asks) begin
        arvalid <= 1'b1;
        araddr <= araddr + ADDRESS'(64);
        to_ask <= to_ask - 32'd1;
      end
      if (asks && !takes) ahead <= ahead + 1'b1;
      if (takes && !asks) ahead <= ahead - 1'b1;
      if (takes) to_give <= to_give - 32'd1;
      if (rvalid && rresp != 2'b00) error <= 1'b1;
    end
  end
  fifo #(.WIDTH(512), .LOG2(DEPTH)) commands (
      .clk, .rst, .push(whole), .tail(assembled), .pop(takes), .head(command), .level
  );
  assign command_valid = level != '0;
endmodule
