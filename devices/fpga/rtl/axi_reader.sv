// The core's read requests, of any length, as AXI bursts. A burst ends where `BURST` words are whole, so that none
// crosses 4096 bytes; data come back in order, since all requests have the same identifier.
module axi_reader #(
    parameter int N = 8,
    parameter int ADDRESS = 40,
    parameter int BURST = 16
) (
    input  logic               clk,
    input  logic               rst,
    input  logic               start,
    input  logic [ADDRESS-1:0] base,     // a multiple of 4096
    output logic               error,
    input  logic               read_valid,
    output logic               read_ready,
    input  logic [       31:0] read_address,
    input  logic [       15:0] read_words,
    output logic               data_valid,
    input  logic               data_ready,
    output logic [    8*N-1:0] data,
    output logic               arvalid,
    input  logic               arready,
    output logic [ADDRESS-1:0] araddr,
    output logic [        7:0] arlen,
    input  logic               rvalid,
    output logic               rready,
    input  logic [    8*N-1:0] rdata,
    input  logic [        1:0] rresp
);
  localparam int L = $clog2(N), B = $clog2(BURST);
  logic [31:0] address;
  logic [15:0] left;
  logic [B:0] room, words;
  assign room = (B + 1)'(BURST) - {1'b0, address[L+:B]};
  assign words = left < 16'(room) ? (B + 1)'(left) : room;
  assign read_ready = left == '0;
  assign data_valid = rvalid;
  assign data = rdata;
  assign rready = data_ready;
  always_ff @(posedge clk) begin
    if (arready) arvalid <= 1'b0;
    if (rst) begin
      arvalid <= 1'b0;
      left <= '0;
      error <= 1'b0;
    end else begin
      if (start) error <= 1'b0;
      else if (rvalid && rresp != 2'b00) error <= 1'b1;
      if (read_ready) begin
        if (read_valid) left <= read_words;
        address <= read_address;
      end else if (!arvalid || arready) begin
        arvalid <= 1'b1;
        araddr <= base + ADDRESS'(address);
        arlen <= 8'(words) - 8'd1;
        left <= left - 16'(words);
        address <= address + (32'(words) << L);
      end
    end
  end
endmodule
